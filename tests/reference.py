"""Slow float64 oracles, written from the papers alone: they share no code with the package."""
