"""What people look at: importance maps, alpha maps, pyramids."""
