"""Data preprocessors for mmseg."""
