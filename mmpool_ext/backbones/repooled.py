"""Another pooling in any registered backbone, its weights and keys kept."""

import logging
import re

import torch
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import nn

from .named import build_backbone


@MODELS.register_module()
def Repooled(backbone: str, pool: dict, where: str = '.*', probe_size: int = 128, **kwargs) -> nn.Module:
    """Build a backbone and put ``pool`` in the place of its poolings and strided convolutions.

    The backbone itself is returned, not a wrapper: its other keys in a config, ``pretrained``, freezing and the names in its checkpoints
    stay valid, and an original checkpoint loads with only the new pools' parameters missing. Those are out of reach of the initialisers of
    the network, so they start as the pool prescribes; what lies in a frozen stage is frozen with it.

    A max or average pooling is replaced by ``pool`` with the same window, whatever its stride. A strided convolution keeps its weights,
    takes stride 1 and hands its output to ``pool``, whose window is the stride by default; that is directly after the convolution, before
    its norm and activation. The paper pools after the ReLU instead, see :class:`PPoolResNet`; :class:`PolynomialPool2d` shifts negative
    values. Poolings by function (``F.max_pool2d``), by a global average or inside deformable convolutions stay.

    Args:
        backbone: Name of the backbone, see :func:`mmpool_ext.backbones.named.build_backbone`.
        pool: Config of the pooling layer. ``in_channels`` is filled in; so are ``kernel_size``, ``stride``, ``padding`` and ``ceil_mode``
            where it does not set them.
        where: Regular expression that the whole dotted name of a module must match for it to be replaced, such as ``'maxpool'`` or
            ``r'layer[234]\\.0\\.(conv2|downsample\\.0)'``. All are by default: "P-pooling replaces all down-sampling operations as well as
            other pooling layers whose stride is 1" (Wei et al., CVPR 2019, Sec. 4.2).
        probe_size: Edge of the square image, in pixels, that the backbone is run on once to learn which modules it uses.
        **kwargs: The backbone's own arguments.

    Returns:
        The backbone.

    Raises:
        ValueError: If ``where`` matches nothing (the message lists what it could), the type of ``pool`` is not registered, a pooling returns
            indices, or the output size of ``pool`` differs from that of what it replaces.
    """
    network = build_backbone(backbone, **kwargs)
    repool(network, pool, where, torch.zeros(1, kwargs.get('in_channels', kwargs.get('in_chans', 3)), probe_size, probe_size))
    return network


def repool(network: nn.Module, pool: dict, where: str, image: torch.Tensor) -> None:
    """Put ``pool`` in the place of a network's poolings and strided convolutions: :func:`Repooled` for a network that is built already.

    Args:
        network: Edited in place.
        pool: Config of the pooling layer.
        where: Regular expression on the whole names of modules.
        image: What the network is run on once.
    """
    training = network.training
    network.eval()
    called = _called(network, image)
    chosen = {name: module for name, module in network.named_modules() if module in called and re.fullmatch(where, name)}
    if not chosen:
        candidates = [name for name, module in network.named_modules() if module in called]
        raise ValueError(
            f'Repooled: where must match a pooling or strided convolution of {type(network).__name__}, but got {where!r}; there are {candidates}'
        )
    for name, module in chosen.items():
        _replace(network, name, module, called[module], pool)
    print_log(f'Repooled: {pool["type"]} at {", ".join(chosen)} of {type(network).__name__}', logger='current', level=logging.INFO)
    network.train(training)  # freezes what is new in a frozen stage


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
        if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)) or (isinstance(module, nn.Conv2d) and max(module.stride) > 1)
    ]
    with torch.no_grad():
        network(image)
    for hook in hooks:
        hook.remove()
    return inputs


def _replace(network, name, module, shape, pool):
    if isinstance(module, nn.Conv2d):
        # ceil((H + 2p - k + 1) / s) pixels are what the strided convolution gives, for every size
        window = dict(kernel_size=module.stride, stride=module.stride, padding=0, ceil_mode=True)
        channels = module.out_channels
    else:
        if getattr(module, 'return_indices', False) or getattr(module, 'dilation', 1) not in (1, (1, 1)):
            raise ValueError(f'Repooled: a replaced pooling must have no dilation and return no indices, but got {module} at {name}')
        window = {key: getattr(module, key) for key in ('kernel_size', 'stride', 'padding', 'ceil_mode')}
        channels = shape[1]
    replacement = Replacement(dict(dict(in_channels=channels, **window), **pool))
    grown = [torch.ones(1, *shape[1:-2], shape[-2] + more, shape[-1] + more) for more in range(4)]
    sizes = [tuple(_run(module, input).shape[2:]) for input in grown]
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
        got = tuple(_run(new, input).shape[2:])
        if got != size:
            raise ValueError(
                f'Repooled: pool must keep the output size of what it replaces, but got {got} from {pool} and {size} from {name} ({module}) '
                f'for an input of {tuple(input.shape[2:])}; see its kernel_size, padding and ceil_mode'
            )


@torch.no_grad()
def _run(module, input):
    return module.eval()(input)


def _pool_output(conv, args, output):
    return conv.replacement(output)


class Replacement(nn.Module):
    """A pooling layer in a foreign network, whose initialisers must not reach it.

    They work through ``apply``, which stops here: a convolution in a pool's side branch is none of the network's convolutions.

    Args:
        pool: Complete config of the pooling layer.

    Raises:
        ValueError: If its type is not registered.
    """

    def __init__(self, pool: dict):
        super().__init__()
        with MODELS.switch_scope_and_registry(None) as registry:
            if isinstance(pool['type'], str) and registry.get(pool['type']) is None:
                raise ValueError(f'Repooled: pool must have a registered type, but got {pool["type"]!r}')
        self.pool = MODELS.build(pool)
        if hasattr(self.pool, 'init_weights'):
            self.pool.init_weights()

    def apply(self, fn):
        """Leave the pool as it is."""
        return self

    def forward(self, input):
        """Pool ``input``."""
        return self.pool(input)
