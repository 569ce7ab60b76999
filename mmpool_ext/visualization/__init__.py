"""What people look at: importance maps, receptive fields, alpha maps, pyramids."""
