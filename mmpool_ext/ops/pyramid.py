"""Pyramids of labels: which cells are pure, which are left to learn, and which level each pixel takes its label from."""

import itertools

import torch

VOID_RULES = ('agree', 'strict')
RELABEL_MODES = ('raw', 'gt', 'tp')
NEITHER = -1  # in unity maps, for cells that are void or done; labels have a marker of their own, which may be 0 or 1


def check_strides(name, strides):
    """Raise unless ``strides`` halve from level to level, e.g. ``(32, 16, 8, 4)``."""
    halves = len(strides) >= 2 and all(fine >= 1 and coarse == 2 * fine for coarse, fine in itertools.pairwise(strides))
    if not halves:
        raise ValueError(f'{name}: strides must be two or more, each half of the one before, e.g. (32, 16, 8, 4), but got {tuple(strides)}')


def check_threshold(name, threshold):
    """Raise unless ``threshold`` is a probability strictly between 0 and 1."""
    if not 0 < threshold < 1:
        raise ValueError(f'{name} must lie strictly between 0 and 1, but got {threshold}')


def upsample_cells(cells, scale):
    """Copy every cell to its ``scale x scale`` descendants; ``cells`` is ``(..., H, W)`` of any dtype."""
    grown = cells[..., :, None, :, None].expand(*cells.shape[:-1], scale, cells.shape[-1], scale)
    return grown.flatten(-2).flatten(-3, -2)


def label_pyramid(label, strides=(32, 16, 8, 4), ignore_index=255, void_rule='agree'):
    """Find the unit-cells of a label map at every level, and their labels.

    A cell is a unit-cell if all its pixels share one label: Section 3.1 of "Specialize and Fuse: Pyramidal Output Representation for
    Semantic Segmentation", ICCV 2021. The finest level is the label map downsampled, each cell taking the pixel at its centre. The
    paper leaves its rule for void pixels to a supplement: see ``void_rule``.

    Args:
        label: Integer labels ``(N, H, W)``; H and W multiples of ``strides[0]``.
        strides: Cell edges in pixels from the coarsest level to the finest, each half of the one before.
        ignore_index: The label of void pixels and, in the label maps, of mixed and of void cells. Any integer, 0 and 1 too.
        void_rule: ``'agree'``: void pixels agree with any label, a cell of nothing else is void. ``'strict'``: one void pixel makes its cell void.

    Returns:
        ``(semantic, unity)``: L label maps ``(N, H / stride, W / stride)`` of the dtype of ``label``, and L - 1 maps of the same sizes
        (the finest level has none) of int8: 1 for unit-cells, 0 for mixed cells, -1 for void cells, whatever ``ignore_index`` is.

    Raises:
        ValueError: If the strides do not halve, the size is no multiple of the coarsest, or the rule is unknown.
        TypeError: If the labels are not integers.

    Example:
        >>> label = torch.tensor([[[7, 7, 7, 3], [7, 7, 3, 3], [255, 3, 3, 3], [255, 3, 3, 3]]])
        >>> semantic, unity = label_pyramid(label, strides=(4, 2))
        >>> unity[0].tolist(), semantic[1].tolist()
        ([[[0]]], [[[7, 3], [3, 3]]])
    """
    check_strides('label_pyramid', strides)
    if void_rule not in VOID_RULES:
        raise ValueError(f'label_pyramid: void_rule must be one of {VOID_RULES}, but got {void_rule!r}')
    if label.dim() != 3 or label.is_floating_point() or label.is_complex() or label.dtype == torch.bool:
        raise TypeError(f'label_pyramid: label must be integers of shape (N, H, W), but got {label.dtype} of shape {tuple(label.shape)}')
    height, width = label.shape[1:]
    if height == 0 or width == 0 or height % strides[0] or width % strides[0]:
        raise ValueError(f'label_pyramid: height and width must be multiples of the coarsest stride {strides[0]}, but got {height} x {width}')

    finest = strides[-1]
    semantic, unity = [label[:, finest // 2 :: finest, finest // 2 :: finest]], []
    void = label == ignore_index
    low = label.masked_fill(void, torch.iinfo(label.dtype).max)
    high = label.masked_fill(void, torch.iinfo(label.dtype).min)  # below low where a cell holds nothing but void
    scale = strides[-2]
    for _ in strides[:-1]:
        cells = (-1, height // scale, scale, width // scale, scale)
        low, high = low.reshape(cells).amin((2, 4)), high.reshape(cells).amax((2, 4))
        void = void.reshape(cells).any(4).any(2)
        height, width, scale = height // scale, width // scale, 2
        unit, dropped = low == high, low > high if void_rule == 'agree' else void
        unity.insert(0, unit.to(torch.int8).masked_fill(dropped, NEITHER))
        semantic.insert(0, low.masked_fill(~unit | dropped, ignore_index))
    return semantic, unity


def relabel_pyramid(semantic, unity, unity_logits=(), mode='tp', threshold=0.5, ignore_index=255):
    """Drop the cells that a coarser cell has already done ("done by coarser", Section 3.1).

    Args:
        semantic: L label maps as :func:`label_pyramid` returns them.
        unity: Their L - 1 unity maps.
        unity_logits: L - 1 predicted unity maps, each the shape of its ``unity``; only ``'tp'`` reads them.
        mode: ``'raw'`` keeps every label. ``'gt'`` drops the descendants of every unit-cell. ``'tp'`` drops a cell if and only if some
            ancestor is a unit-cell that is predicted as one: what the fuser would not find stays to be learnt at the finer levels.
        threshold: A cell with ``sigmoid(logit) >= threshold`` is predicted as unit.
        ignore_index: The label of dropped cells.

    Returns:
        New ``(semantic, unity)``, dropped cells at ``ignore_index`` in the label maps and at -1 in the unity maps. No gradient flows from here.

    Raises:
        ValueError: If the mode is unknown, the threshold no probability, or the shapes differ.

    Example:
        >>> semantic, unity = label_pyramid(torch.full((1, 4, 4), 7), strides=(4, 2))
        >>> relabel_pyramid(semantic, unity, mode='gt')[0][1].tolist()
        [[[255, 255], [255, 255]]]
    """
    check_threshold('relabel_pyramid: threshold', threshold)
    if mode not in RELABEL_MODES:
        raise ValueError(f'relabel_pyramid: mode must be one of {RELABEL_MODES}, but got {mode!r}')
    if mode == 'raw':
        return list(semantic), list(unity)
    done = [truth == 1 for truth in unity]
    if mode == 'tp':
        shapes, wanted = [tuple(logit.shape) for logit in unity_logits], [tuple(truth.shape) for truth in unity]
        if shapes != wanted:
            raise ValueError(f'relabel_pyramid: unity_logits must have the shapes of unity, {wanted}, but got {shapes}')
        done = [found & (logit.detach().sigmoid() >= threshold) for found, logit in zip(done, unity_logits, strict=True)]
    semantic, unity = list(semantic), list(unity)
    above = torch.zeros_like(done[0])
    for level in range(1, len(semantic)):
        above = upsample_cells(above | done[level - 1], 2)
        semantic[level] = semantic[level].masked_fill(above, ignore_index)
        if level < len(unity):
            unity[level] = unity[level].masked_fill(above, NEITHER)
    return semantic, unity


def fuse_pyramid(semantic, unity_logits, threshold=0.5):
    """Let each pixel of the finest level take the prediction of its coarsest cell that is predicted as unit (Eq. 2).

    Args:
        semantic: L maps ``(N, C, h, w)`` of any dtype, coarsest first, each level twice the size of the one before.
        unity_logits: L - 1 maps ``(N, h, w)``, one for each level but the finest.
        threshold: A cell with ``sigmoid(logit) >= threshold`` is taken as unit.

    Returns:
        ``(fused, level)``: the map ``(N, C, H, W)`` of the finest size, and ``(N, H, W)`` with the index of the level that each pixel
        took, 0 for the coarsest.

    Raises:
        ValueError: If the threshold is no probability or the sizes do not double.

    Example:
        >>> coarse, fine = torch.tensor([[[[9]]]]), torch.tensor([[[[1, 2], [3, 4]]]])
        >>> fuse_pyramid([coarse, fine], [torch.tensor([[[4.0]]])])[0].tolist()
        [[[[9, 9], [9, 9]]]]
        >>> fuse_pyramid([coarse, fine], [torch.tensor([[[-4.0]]])])[0].tolist()
        [[[[1, 2], [3, 4]]]]
    """
    check_threshold('fuse_pyramid: threshold', threshold)
    sizes = [tuple(level.shape[-2:]) for level in semantic]
    unity_sizes = [tuple(logit.shape[-2:]) for logit in unity_logits]
    doubled = [(2 * height, 2 * width) for height, width in sizes[:-1]]
    if sizes[1:] != doubled or unity_sizes != sizes[:-1]:
        raise ValueError(
            f'fuse_pyramid: each level must be twice the size of the one before and unity_logits must have the sizes of all but the finest, '
            f'but got {sizes} and {unity_sizes}'
        )
    finest = len(semantic) - 1
    fused = semantic[finest]
    level = torch.full((fused.shape[0], *fused.shape[-2:]), finest, device=fused.device)
    for index in reversed(range(finest)):
        scale = 2 ** (finest - index)
        unit = upsample_cells(unity_logits[index].sigmoid() >= threshold, scale)
        fused = torch.where(unit.unsqueeze(1), upsample_cells(semantic[index], scale), fused)
        level = level.masked_fill(unit, index)
    return fused, level
