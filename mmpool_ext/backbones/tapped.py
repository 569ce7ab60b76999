"""Return features of a backbone's inner modules in addition to its last output."""

import threading
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from .named import build_backbone


@MODELS.register_module()
def Tapped(backbone: str | type | dict, taps: Sequence[str], **kwargs) -> nn.Module:
    """Build a backbone whose ``forward`` returns the outputs of ``taps``, in their order, and then its last feature map.

    A tap is a copy of the module's output, because later layers may change the output in place. The names of DUpsampling's paper (Section
    4.1.2; before the residual addition) in mmseg and timm, where ``resnet50s`` has the 64-64-128 stem that the paper's widths imply:

    ============  ================================  =====================================
    conv1_3       timm.resnet50s                    ``act1``
    conv1_3       ResNetV1c, stem_channels=128      ``stem.8`` (after its ReLU)
    b1u2c3        timm.resnet50s (ResNetV1c)        ``layer1.1.bn3`` (``layer1.1.norm3``)
    b3u6c3        timm.resnet50s (ResNetV1c)        ``layer3.5.bn3`` (``layer3.5.norm3``)
    efb2u1c2      timm.xception65, xception71       ``blocks_1.stack.conv2``
    mfb1u16c3     timm.xception65 (xception71)      ``blocks_18`` (``blocks_20``) ``.stack.conv3``
    ============  ================================  =====================================

    The backbone is built by :func:`build_backbone` and returned itself, not wrapped, so its keys, freezing and ``pretrained`` stay the same. A
    block that holds a tap is not checkpointed (``with_cp``): a reentrant checkpoint would cut the tap off its gradient.

    Args:
        backbone: Name, class or config as in :func:`build_backbone`.
        taps: Names of modules inside of it, as in ``named_modules`` or by property (``norm3``).
        **kwargs: The backbone's own arguments.

    Raises:
        ValueError: If a tap names no module.
        RuntimeError: In ``forward``, if a tap is used more than once or not at all, does not give a tensor, or stands inside a checkpoint.
    """
    network = build_backbone(backbone, **kwargs)
    for tap in taps:
        _module(network, tap)
        path = tap.split('.')
        for depth in range(1, len(path)):
            block: Any = network.get_submodule('.'.join(path[:depth]))
            if getattr(block, 'with_cp', False):
                block.with_cp = False
    recorder = _Recorder(tuple(taps))
    recorder.hook(network)
    network.register_forward_pre_hook(recorder.begin)
    network.register_forward_hook(recorder.end)
    return network


class _Call(threading.local):
    """The forward that runs in this thread: whether there is one, what its taps gave so far, and whether gradients were wanted at its start."""

    def __init__(self):
        self.runs, self.values, self.grad = False, {}, True

    def __reduce__(self):
        return _Call, ()  # copies and pickles of a network begin without a forward


class _Recorder:
    """Keeps the taps' outputs during one forward only: checkpointing runs blocks again in the backward pass."""

    def __init__(self, taps):
        self.taps, self.call = taps, _Call()

    def hook(self, network):
        """Hook the taps that are not hooked yet: tools replace norms in a built model."""
        for tap in self.taps:
            module = _module(network, tap)
            if not any(getattr(hook, 'recorder', None) is self and hook.name == tap for hook in module._forward_hooks.values()):
                module.register_forward_hook(_Tap(self, tap))

    def begin(self, network, args):
        self.hook(network)
        self.call.runs, self.call.values, self.call.grad = True, {}, torch.is_grad_enabled()

    def end(self, network, args, output):
        values = self.call.values
        self.call.runs, self.call.values = False, {}
        unused = [tap for tap in self.taps if tap not in values]
        if unused:
            raise RuntimeError(f'Tapped: each tap must be used in forward, but got no output of {unused}; is it behind the last of out_indices?')
        return (*(values[tap] for tap in self.taps), output[-1] if isinstance(output, (tuple, list)) else output)


class _Tap:
    def __init__(self, recorder, name):
        self.recorder, self.name = recorder, name

    def __call__(self, module, args, output):
        call, name = self.recorder.call, self.name
        if not call.runs:
            return
        if not isinstance(output, Tensor):
            raise RuntimeError(f'Tapped: the output of a tap must be a tensor, but got {type(output).__name__} from {name!r}')
        if name in call.values:
            raise RuntimeError(f'Tapped: a tap must be used once in a forward, but got a second use of {name!r}')
        if call.grad and not torch.is_grad_enabled():
            raise RuntimeError(f'Tapped: a tap must not stand inside a reentrant checkpoint, but got {name!r} there; turn checkpointing off')
        call.values[name] = output.clone()


def _module(network, tap):
    try:
        return network.get_submodule(tap)
    except AttributeError:
        names = [name for name, _ in network.named_modules() if name]
        close = get_close_matches(tap, names, n=3, cutoff=0.3)
        raise ValueError(f'Tapped: a tap must name a module of {type(network).__name__}, but got {tap!r}; close to it: {", ".join(close)}') from None
