"""Build a pooling for its place in a network, choose how it starts, and check its output size."""

from difflib import get_close_matches

import torch
from mmengine.registry import MODELS
from mmengine.utils import to_2tuple
from torch import nn

from ..layers import PolynomialPool2d
from ..ops.tracing import traceable
from ..ops.window import Window


def class_of(cfg: dict, owner: str, what: str = 'pool'):
    """Class that a config's ``type`` names.

    Args:
        cfg: Config of a layer.
        owner: The network that is given it, for the message.
        what: The network's argument.

    Raises:
        ValueError: If nothing of that name is registered; the message names what is close.
    """
    with MODELS.switch_scope_and_registry(None) as registry:
        if not isinstance(cfg['type'], str):
            return cfg['type']
        found = registry.get(cfg['type'])
        if found is None:
            suffix = 'Logit' if what.endswith('logit') else 'Pool2d'
            close = get_close_matches(cfg['type'], [name for name in registry.module_dict if name.endswith(suffix)], n=3)
            hint = f'; close to it: {", ".join(close)}' if close else ''
            raise ValueError(f'{owner}: {what} must have a registered type, but got {cfg["type"]!r}{hint}')
        return found


def start_of(pool: dict, replaces: str, owner: str) -> dict:
    """Choose the arguments with which a pooling starts closest to what it replaces, unless its config sets them.

    Args:
        pool: Config of the pooling layer.
        replaces: ``'max'`` (the paper's start), ``'average'``, or ``'stride'``. A strided convolution keeps one pixel of each window; the
            smallest orders are closest to that.
        owner: Name of the caller, for an error message.

    Returns:
        Arguments for the layer: an order of 0.01 above the smallest for P-pooling, and nothing for other layers.
    """
    cls = class_of(pool, owner)
    if replaces == 'max' or not (isinstance(cls, type) and issubclass(cls, PolynomialPool2d)):
        return {}
    return dict(initial_alpha=pool.get('alpha_range', (0.0,))[0] + 0.01)


def build_pool(
    pool: dict,
    in_channels: int,
    kernel_size,
    stride,
    padding=0,
    ceil_mode: bool = False,
    replaces: str = 'max',
    owner: str = 'build_pool',
    step: int = 1,
) -> nn.Module:
    """Build a pooling layer for a place in a network.

    Args:
        pool: Its config, which overrides the other arguments.
        in_channels: Channels at that place.
        kernel_size: Window edge in pixels, as for the other arguments of :class:`mmpool_ext.layers.window_pool.WindowPool2d`.
        stride: Distance of windows.
        padding: Padding on each side.
        ceil_mode: Whether partly filled windows count.
        replaces: See :func:`start_of`.
        owner: Name of the caller, for the error message.
        step: Only input sizes that are multiples of this are checked.

    Returns:
        The layer.

    Raises:
        ValueError: If its output does not have the size that this window gives.
    """
    place = dict(in_channels=in_channels, kernel_size=kernel_size, stride=stride, padding=padding, ceil_mode=ceil_mode)
    layer = MODELS.build({**place, **start_of(pool, replaces, owner), **pool})
    check_size(layer, pool, place, owner, step=step)
    return layer


def check_size(layer: nn.Module, pool: dict, place: dict, owner: str, feature_channels: int | None = None, step: int = 1):
    """Raise if a pooling layer does not give the output size that its place needs.

    Args:
        layer: The built layer.
        pool: Its config, for the message.
        place: ``in_channels``, ``kernel_size``, ``stride``, ``padding`` and perhaps ``ceil_mode`` and ``dilation`` of the place.
        owner: Name of the caller, for the error message.
        feature_channels: Channels of the features from which a LIP computes its logit, where these are not the input.
        step: Only input sizes that are multiples of this are checked.

    Raises:
        ValueError: If the sizes differ.
    """
    sides = (place['kernel_size'], place['stride'], place['padding'], place.get('dilation', 1))
    kernel_size, stride, padding, dilation = map(to_2tuple, sides)
    window = Window(kernel_size, stride, padding, dilation, place.get('ceil_mode', False))
    edge = 2 * step * max(kernel * gap for kernel, gap in zip(kernel_size, dilation, strict=True))
    for size in ((edge + more, edge + more) for more in range(0, 4 * step, step)):
        features = () if feature_channels is None else (torch.ones(1, feature_channels, *size),)
        got = output_size(layer, torch.ones(1, place['in_channels'], *size), *features)
        refuse_size(owner, pool, got, window.output_size(*size), f'the window {place}', size)


@torch.no_grad()
def output_size(module: nn.Module, *inputs) -> tuple[int, int]:
    """Return the height and width of a module's output."""
    training = module.training
    size = tuple(module.eval()(*inputs).shape[2:])
    module.train(training)
    return size


@traceable
def refuse_small(owner: str, image: torch.Tensor, least: int):
    """Raise if an image has less than ``least`` pixels on a side."""
    if min(image.shape[-2:]) < least:
        raise ValueError(f'{owner}: image must be at least {least} pixels high and wide, but got {tuple(image.shape[-2:])}')


def refuse_size(owner: str, pool: dict, got, expected, place: str, size):
    """Raise if two output sizes differ."""
    if tuple(got) != tuple(expected):
        raise ValueError(
            f'{owner}: pool must keep the output size of what it replaces, but got {tuple(got)} from {pool} and {tuple(expected)} from {place} '
            f'for an input of {tuple(size)}; see its kernel_size, padding and ceil_mode'
        )
