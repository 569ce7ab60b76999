"""Tensors in, tensors out: every pooling here is a weighted mean over a window."""

__all__: list[str] = []
