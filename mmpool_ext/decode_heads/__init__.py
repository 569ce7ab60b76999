"""Decode heads for mmseg: the only sub-package that imports it."""
