"""Pooling layers: an op with its parameters."""

__all__: list[str] = []
