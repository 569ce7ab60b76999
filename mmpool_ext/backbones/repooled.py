"""Replace the poolings and strided convolutions of any registered backbone and keep its weights and keys."""

import logging
import re
from difflib import get_close_matches

import torch
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import nn

from .named import build_backbone, with_arguments
from .pool import class_of, output_size, refuse_size, start_of


@MODELS.register_module()
def Repooled(backbone: str | type | dict, pool: dict, where: str | list[str] = '.*', probe_size: int = 128, **kwargs) -> nn.Module:
    """Build a backbone and put ``pool`` in the place of its poolings and strided convolutions.

    The backbone itself is returned, not a wrapper: its other keys in a config, ``pretrained``, freezing and the names in its checkpoints
    stay valid, and an original checkpoint loads with only the new pools' parameters missing. The network's initialisers do not touch those,
    so they start as the pool prescribes. A pool in a frozen stage is frozen with it.

    A max or average pooling is replaced by ``pool`` with the same window, whatever its stride. A strided convolution keeps its weights, gets
    stride 1, and its output goes to ``pool``, whose window is the stride by default. So the pooling comes directly after the convolution, before
    its norm and activation. The paper pools after the ReLU instead, see :class:`PPoolResNet`; :class:`PolynomialPool2d` shifts negative values.
    timm's BlurPool2d is replaced like a pooling, and together with the max pooling of stride 1 before it as one. P-pooling starts at the paper's
    20 in the place of max pooling, and in all other places at 0.01, see :func:`mmpool_ext.backbones.pool.start_of`; an ``initial_alpha`` in
    ``pool`` holds for all. Poolings by function (``F.max_pool2d``), by a global average or inside deformable convolutions stay.

    Args:
        backbone: Name, class or config of the backbone, see :func:`mmpool_ext.backbones.named.build_backbone`.
        pool: Config of the pooling layer. ``in_channels`` is filled in; so are ``kernel_size``, ``stride``, ``padding`` and ``ceil_mode``
            where it does not set them.
        where: Regular expression, or a list of them. A module is replaced if one of them matches its whole dotted name (``re.fullmatch``), such
            as ``'maxpool'`` or ``r'layer[234]\\.0\\.(conv2|downsample\\.0)'``. All are by default: "P-pooling replaces all down-sampling
            operations as well as other pooling layers whose stride is 1" (Wei et al., CVPR 2019, Sec. 4.2).
        probe_size: Edge of the square image, in pixels, that the backbone is run on once to learn which modules it uses.
        **kwargs: The backbone's own arguments.

    Returns:
        The backbone.

    Raises:
        ValueError: If a pattern of ``where`` matches nothing (the message lists the names), the type of ``pool`` is not registered (the message
            lists close names), a pooling returns indices, or the output size of ``pool`` differs from that of what it replaces.
        TypeError: If ``where`` is neither a string nor a list of strings.
    """
    backbone, kwargs = with_arguments(backbone, kwargs)
    network = build_backbone(backbone, **kwargs)
    repool(network, pool, where, torch.zeros(1, kwargs.get('in_channels', kwargs.get('in_chans', 3)), probe_size, probe_size))
    return network


def repool(network: nn.Module, pool: dict, where: str | list[str], image: torch.Tensor) -> None:
    """Put ``pool`` in the place of a network's poolings and strided convolutions: :func:`Repooled` for a network that is built already.

    Args:
        network: Edited in place.
        pool: Config of the pooling layer.
        where: See :func:`Repooled`.
        image: What the network is run on once.
    """
    training = network.training
    network.eval()
    called = _called(network, image)
    patterns = _patterns(where)
    candidates = [name for name, module in network.named_modules() if module in called]
    for pattern in patterns:
        if not any(re.fullmatch(pattern, name) for name in candidates):
            raise ValueError(
                f'Repooled: where must match the whole name of a pooling or strided convolution of {type(network).__name__}, but got {pattern!r}'
                f'{_whole(pattern, candidates)}; there are {candidates}'
            )
    chosen = {name: network.get_submodule(name) for name in candidates if any(re.fullmatch(pattern, name) for pattern in patterns)}
    for name, module in chosen.items():
        _replace(network, name, module, called[module], pool)
    print_log(f'Repooled: {_type_name(pool)} at {", ".join(chosen)} of {type(network).__name__}', logger='current', level=logging.INFO)
    network.train(training)  # freezes what is new in a frozen stage


def _type_name(pool):
    return pool['type'] if isinstance(pool['type'], str) else pool['type'].__name__


def _patterns(where):
    patterns = [where] if isinstance(where, str) else where
    if not isinstance(patterns, (list, tuple)) or not patterns or not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f'Repooled: where must be a regular expression or a list of them, but got {where!r}')
    return patterns


def _whole(pattern, candidates):
    """What to write instead of a pattern that matches a part of a name, or that is close to a name."""
    part = [name for name in candidates if re.search(pattern, name)]
    if part:
        return f", which matches only a part of {', '.join(part[:3])}: write '.*' around it"
    close = get_close_matches(pattern, candidates, n=3)
    return f'; close to it: {", ".join(close)}' if close else ''


def _called(network, image):
    """The poolings and strided convolutions that ``network`` runs, with the shape of each one's input."""
    inputs = {}

    def note(module, args):
        shape = args[0].shape
        if module in inputs and inputs[module][1] != shape[1]:
            raise ValueError(f'Repooled: a pooling must always have the same channels, but got {inputs[module][1]} and {shape[1]} for {module}')
        inputs[module] = shape

    hooks = [
        module.register_forward_pre_hook(note)
        for module in network.modules()
        if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)) or _blurs(module) or (isinstance(module, nn.Conv2d) and max(module.stride) > 1)
    ]
    with torch.no_grad():
        network(image)
    for hook in hooks:
        hook.remove()
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential) and len(module) == 2 and _blurs(module[1]) and isinstance(module[0], nn.MaxPool2d):
            inputs[module] = inputs.pop(module[0])  # one place: max pooling that was made anti-aliased
            del inputs[module[1]]
    return inputs


def _blurs(module):
    """Whether a module is timm's BlurPool2d, without importing timm."""
    return any(cls.__name__ == 'BlurPool2d' for cls in type(module).__mro__)


def _place(name, module, shape):
    """Channels and window of a place, and what is there."""
    if isinstance(module, nn.Conv2d):
        # ceil((H + 2p - k + 1) / s) pixels are what the strided convolution gives, for every size
        return dict(in_channels=module.out_channels, kernel_size=module.stride, stride=module.stride, padding=0, ceil_mode=True), 'stride'
    if _blurs(module):
        padding = module.padding[0] if isinstance(module.padding, (list, tuple)) else module.padding
        return dict(in_channels=shape[1], kernel_size=module.filt_size, stride=module.stride, padding=padding, ceil_mode=False), 'average'
    stride = None
    if isinstance(module, nn.Sequential):
        stride, module = module[1].stride, module[0]
    if getattr(module, 'return_indices', False) or getattr(module, 'dilation', 1) not in (1, (1, 1)):
        raise ValueError(f'Repooled: a replaced pooling must have no dilation and return no indices, but got {module} at {name}')
    window = {key: getattr(module, key) for key in ('kernel_size', 'stride', 'padding', 'ceil_mode')}
    window['stride'] = stride or window['stride']
    return dict(in_channels=shape[1], **window), 'max' if isinstance(module, nn.MaxPool2d) else 'average'


def _replace(network, name, module, shape, pool):
    place, kind = _place(name, module, shape)
    replacement = Replacement({**place, **start_of(pool, kind, 'Repooled'), **pool})
    grown = [torch.ones(1, *shape[1:-2], shape[-2] + more, shape[-1] + more) for more in range(4)]
    sizes = [output_size(module, input) for input in grown]
    if isinstance(module, nn.Conv2d):
        module.stride = (1, 1)
        module.replacement = replacement
        module.register_forward_hook(_pool_output)
        new = module
    else:
        new = replacement
        for parent in network.modules():
            for key, child in parent._modules.items():
                if child is module:
                    setattr(parent, key, replacement)
    for input, size in zip(grown, sizes, strict=True):
        refuse_size('Repooled', pool, output_size(new, input), size, f'{name} ({module})', input.shape[2:])


def _pool_output(conv, args, output):
    return conv.replacement(output)


class Replacement(nn.Module):
    """A pooling layer in a foreign network, whose initialisers must not reach it.

    They work through ``apply``, which stops here, so a convolution in a pool's side branch is not initialised as the network's convolutions are.

    Args:
        pool: Complete config of the pooling layer.

    Raises:
        ValueError: If its type is not registered.
    """

    def __init__(self, pool: dict):
        super().__init__()
        class_of(pool, 'Repooled')
        self.pool = MODELS.build(pool)
        if hasattr(self.pool, 'init_weights'):
            self.pool._dump_init_info = lambda: None  # mmengine would log every parameter of every pool
            self.pool.init_weights()
            del self.pool._dump_init_info

    def apply(self, fn):
        """Leave the pool as it is."""
        return self

    def forward(self, input):
        """Pool ``input``."""
        return self.pool(input)
