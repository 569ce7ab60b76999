"""What DUpsampling learnt from the labels, as a picture."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor


def draw_components(weight: Tensor, class_names: Sequence[str], scale_factor: int, num_components: int = 12, tile: int = 48) -> Image.Image:
    """Draw the leading columns of W: a row a component, a column a class, red where it raises the class's logit and blue where it lowers it.

    Args:
        weight: W ``(C r^2, channels)``, rows by class, row, column.
        class_names: The C names.
        scale_factor: Window edge r.
        num_components: Most components to draw.
        tile: Edge of a window in pixels of the picture.

    Returns:
        The picture; each row has its own scale.

    Raises:
        ValueError: If ``weight`` has another number of rows.
    """
    classes, r = len(class_names), scale_factor
    if weight.shape[0] != classes * r**2:
        raise ValueError(f'draw_components: weight must have {classes} * {r} ** 2 rows, but got {weight.shape[0]}')
    windows = weight.T[:num_components].reshape(-1, classes, r, r)
    windows = windows / windows.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
    windows = F.interpolate(windows, (tile, tile), mode='nearest')
    colours = torch.stack([1 - (-windows).clamp_min(0), 1 - windows.abs(), 1 - windows.clamp_min(0)], dim=-1)
    colours = F.pad(colours, (0, 0, 1, 1, 1, 1), value=0.6)
    picture = colours.permute(0, 2, 1, 3, 4).flatten(2, 3).flatten(0, 1)
    picture = F.pad(picture, (0, 0, 0, 0, 14, 0), value=1)
    image = Image.fromarray((picture * 255).round().byte().numpy())
    draw = ImageDraw.Draw(image)
    for index, name in enumerate(class_names):
        draw.text((index * (tile + 2) + 2, 1), name[:8], fill=(0, 0, 0))
    return image
