"""Sizes of images and features, as the heads compare them."""

from collections.abc import Sequence

import torch

from ..ops.tracing import is_symbolic


def network_size(batch_img_metas: list[dict]) -> Sequence[int]:
    """Height and width of the images, or of the sliding window, as they entered the network."""
    shape = batch_img_metas[0]['img_shape']
    if not isinstance(shape, torch.Size):  # mmseg's sliding window sets a torch.Size
        shape = batch_img_metas[0].get('pad_shape', shape)
    return shape[:2]


def check_stride(rule: str, stride: int, size: Sequence[int], image: Sequence[int]) -> None:
    """Check that a map ``size`` of an image, height and width, has a stride; a backbone may round up or down.

    Args:
        rule: The head and what it expects, as the message begins.
        stride: Pixels of the image a cell.
        size: Of the map, in cells.
        image: In pixels.

    Raises:
        ValueError: If the map covers the image with a stride or more too much or too little.
    """
    if is_symbolic():
        return
    if any(abs(cells * stride - edge) >= stride for cells, edge in zip(size, image, strict=True)):
        raise ValueError(f'{rule}, but got features of {size[0]} x {size[1]} for an image of {image[0]} x {image[1]}')
