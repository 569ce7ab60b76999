"""Backbones: stages, out_indices, freezing, checkpoints."""

__all__: list[str] = []
