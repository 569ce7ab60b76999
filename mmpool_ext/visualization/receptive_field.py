"""What a network looks at: class activation maps and effective receptive fields (LIP paper, Fig. 5)."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor


def class_logits(model, inputs: Tensor, data_samples=None) -> tuple[Tensor, Tensor]:
    """Logits and probabilities of all that a classifier or detector predicts.

    Args:
        model: An ``ImageClassifier`` of mmpretrain, or a single-stage or two-stage detector of mmdet.
        inputs: One preprocessed image ``(1, 3, H, W)``.
        data_samples: Its data sample in a list, which detectors ask for.

    Returns:
        Two ``(predictions, classes)``: one prediction of a classifier, one a box of a detector. A two-stage detector's last class is background.
    """
    output = model(inputs, data_samples, mode='tensor')
    if hasattr(model, 'roi_head'):
        logits, head = output[0][0], model.roi_head.bbox_head
    elif hasattr(model, 'bbox_head'):
        head = model.bbox_head
        logits = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, head.cls_out_channels) for level in output[0]])
    else:
        logits, head = output, model.head
    loss = getattr(head, 'loss_cls', None)
    return logits, logits.sigmoid() if getattr(loss, 'use_sigmoid', False) else logits.softmax(1)


def class_activation(model, inputs: Tensor, data_samples=None, class_index: int | None = None, stage: int = -1) -> tuple[Tensor, int]:
    """Compute the class activation map of one image: ``sum_k a_k f_k``, ``a_k`` the class score's summed gradient to channel k of the features f.

    For a classifier with global average pooling this is, up to a factor, the CAM of Zhou et al. (CVPR 2016) that the LIP paper draws; for detectors
    it is Grad-CAM (Selvaraju et al., ICCV 2017) without its final ReLU. The class score is the sum of the class's logits over all predictions, each
    counting with its probability.

    Args:
        model: See :func:`class_logits`, in eval mode.
        inputs: One preprocessed image ``(1, 3, H, W)`` with ``requires_grad``.
        data_samples: See :func:`class_logits`.
        class_index: The class. None: that of the greatest probability, summed over predictions.
        stage: Index of the features among the backbone's outputs.

    Returns:
        The map ``(h, w)``, differentiable with respect to ``inputs``, and the class index.

    Raises:
        ValueError: If there is no such class.
    """
    features = []
    handle = model.backbone.register_forward_hook(lambda module, args, output: features.append(output[stage]))
    try:
        logits, probabilities = class_logits(model, inputs, data_samples)
    finally:
        handle.remove()
    classes = logits.shape[1] - hasattr(model, 'roi_head')
    if class_index is None:
        class_index = int(probabilities[:, :classes].sum(0).argmax())
    if not 0 <= class_index < classes:
        raise ValueError(f'class_activation: class_index must be in 0..{classes - 1}, but got {class_index}')
    score = (probabilities.detach() * logits)[:, class_index].sum()
    (gradient,) = torch.autograd.grad(score, features[0], retain_graph=True)
    return (gradient.sum((2, 3), keepdim=True) * features[0]).sum(1)[0], class_index


def receptive_field(activation: Tensor, inputs: Tensor, location: tuple[int, int]) -> Tensor:
    """Compute the effective receptive field of a place in a class activation map: how much it changes with each pixel.

    Luo et al., "Understanding the effective receptive field in deep convolutional neural networks", NIPS 2016.

    Args:
        activation: A map of :func:`class_activation`.
        inputs: The image ``(1, 3, H, W)`` that it was computed from.
        location: ``(x, y)`` in pixels of the image; the nearest cell of the map is taken. Cells are centred at multiples of their stride, where
            padded windows of odd size put them; the 2x2 windows of DenseNet put them half a stride further.

    Returns:
        The gradient's absolute value summed over colours, ``(H, W)``.

    Raises:
        ValueError: If the location lies outside the image.
    """
    (height, width), (x, y) = inputs.shape[2:], location
    if not (0 <= x < width and 0 <= y < height):
        raise ValueError(f'receptive_field: location must lie in the image of {width} x {height} pixels, but got {tuple(location)}')
    cells = ((place * count / edge, count - 1) for place, edge, count in zip((y, x), (height, width), activation.shape, strict=True))
    cell = activation[tuple(min(int(place + 0.5), last) for place, last in cells)]
    return torch.autograd.grad(cell, inputs, retain_graph=True)[0][0].abs().sum(0)


def half_radius(field: Tensor, location: tuple[int, int]) -> float:
    """Radius in pixels of the circle around a location that holds half of a receptive field.

    Example:
        >>> field = torch.zeros(9, 9)
        >>> field[4, 4], field[4, 7] = 3.0, 2.0
        >>> half_radius(field, (4, 4)), half_radius(field, (7, 4))
        (0.0, 3.0)
    """
    height, width = field.shape
    rows, columns = torch.arange(height, device=field.device), torch.arange(width, device=field.device)
    distance = torch.hypot((rows - location[1]).float()[:, None], (columns - location[0]).float()[None])
    distance, order = distance.flatten().sort()
    share = field.flatten()[order].cumsum(0)
    return float(distance[torch.searchsorted(share, share[-1:] / 2)])


def _spread(activation, size, stride):
    """Interpolate a map whose cells are centred at multiples of ``stride`` to every pixel; the outermost cells go on to the border."""
    rows, columns = (2 * torch.arange(edge) / stride / max(cells - 1, 1) - 1 for edge, cells in zip(size, activation.shape, strict=True))
    grid = torch.stack([columns.expand(*size), rows[:, None].expand(*size)], dim=-1)
    return F.grid_sample(activation[None, None], grid[None], padding_mode='border', align_corners=True)[0, 0]


def draw_receptive_fields(
    image,
    locations: list[tuple[int, int]],
    activations: dict[str, Tensor],
    fields: dict[str, list[Tensor]],
    class_name: str,
    strides: dict[str, float],
    figure=None,
) -> Figure:
    """Draw networks beside each other as the LIP paper's Fig. 5.

    Args:
        image: ``(H, W, 3)`` of 0 to 255.
        locations: ``(x, y)`` in pixels, a row each.
        activations: Class activation map ``(h, w)`` of each network.
        fields: Receptive fields ``(H, W)`` of each network, one a location.
        class_name: Class of the maps, for the title.
        strides: Distance of each map's cells in pixels.
        figure: Figure or sub-figure to draw into, or None for a new one.

    Returns:
        A column a network behind the image; the first row shows class activation maps, each other row the receptive fields of a location. Fields are
        drawn as square roots, since few pixels hold most of a gradient.
    """
    height, width = image.shape[:2]
    columns = 1 + len(activations)
    figure = figure or Figure(figsize=(3 * columns, 3 * (1 + len(locations))), layout='constrained')
    grid = figure.subplots(1 + len(locations), columns, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    for axes in grid[:, 0]:
        axes.imshow(image)
    grid[0, 0].set_title('image', fontsize=10)
    grid[0, 0].set_ylabel(f'class activation: {class_name}', fontsize=9)
    for column, (name, activation) in enumerate(activations.items(), 1):
        axes = grid[0, column]
        axes.imshow(image)
        axes.imshow(_spread(activation.detach().cpu(), (height, width), strides[name]), cmap='jet', alpha=0.5)
        axes.set_title(name, fontsize=10)
        for axes, field, location in zip(grid[1:, column], fields[name], locations, strict=True):
            axes.imshow(field.cpu().sqrt(), cmap='gray')
            axes.set_title(f'half within {half_radius(field, location):.0f} pixels', fontsize=9)
            axes.plot(*location, 'r+', markersize=9)
    for axes, (x, y) in zip(grid[1:, 0], locations, strict=True):
        axes.plot(x, y, 'ro', markersize=5)
        axes.set_ylabel(f'receptive field of ({x}, {y})', fontsize=9)
    return figure
