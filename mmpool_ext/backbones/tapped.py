"""Any registered backbone with features of its inner modules beside its last output."""

from collections.abc import Sequence
from difflib import get_close_matches

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from .named import build_backbone


@MODELS.register_module()
def Tapped(backbone: str, taps: Sequence[str], **kwargs) -> nn.Module:
    """Build a backbone whose ``forward`` returns the outputs of ``taps``, in their order, and then its last feature map.

    A tap is a copy of what LEFT the module: what comes after it may add to it and activate it in place. Names of DUpsampling's paper (Section
    4.1.2; before the residual addition) in mmseg and timm:

    ============  ================================  =====================================
    conv1_3       ResNetV1c, stem_channels=128      ``stem.8`` (after its ReLU)
    b1u2c3        ResNetV1c                         ``layer1.1.norm3`` (or ``bn3``)
    b3u6c3        ResNetV1c, ResNet-50              ``layer3.5.norm3``
    efb2u1c2      timm.xception65, xception71       ``blocks_1.stack.conv2``
    mfb1u16c3     timm.xception65 (xception71)      ``blocks_18`` (``blocks_20``) ``.stack.conv3``
    ============  ================================  =====================================

    The backbone is built by :func:`build_backbone` and returned itself, so its keys, freezing and ``pretrained`` stay. A block that holds a
    tap is not checkpointed (``with_cp``): a reentrant checkpoint would cut the tap off its gradient.

    Args:
        backbone: Name as in :func:`build_backbone`.
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
            block = network.get_submodule('.'.join(path[:depth]))
            if getattr(block, 'with_cp', False):
                block.with_cp = False
    recorder = _Recorder(tuple(taps))
    network.register_forward_pre_hook(recorder.begin)
    network.register_forward_hook(recorder.end)
    return network


class _Recorder:
    """Hooks the taps for the length of one forward: tools replace norms in a built model, and checkpoints run blocks again in the backward pass."""

    def __init__(self, taps):
        self.taps, self.values, self.handles, self.grad = taps, {}, [], True

    def begin(self, network, args):
        self._release()
        self.grad = torch.is_grad_enabled()
        self.handles = [_module(network, tap).register_forward_hook(_Tap(self, tap)) for tap in self.taps]

    def end(self, network, args, output):
        values = self.values
        self._release()
        unused = [tap for tap in self.taps if tap not in values]
        if unused:
            raise RuntimeError(f'Tapped: each tap must be used in forward, but got no output of {unused}; is it behind the last of out_indices?')
        return (*(values[tap] for tap in self.taps), output[-1] if isinstance(output, (tuple, list)) else output)

    def _release(self):
        for handle in self.handles:
            handle.remove()
        self.handles, self.values = [], {}


class _Tap:
    def __init__(self, recorder, name):
        self.recorder, self.name = recorder, name

    def __call__(self, module, args, output):
        recorder, name = self.recorder, self.name
        if not isinstance(output, Tensor):
            raise RuntimeError(f'Tapped: the output of a tap must be a tensor, but got {type(output).__name__} from {name!r}')
        if name in recorder.values:
            raise RuntimeError(f'Tapped: a tap must be used once in a forward, but got a second use of {name!r}')
        if recorder.grad and not torch.is_grad_enabled():
            raise RuntimeError(f'Tapped: a tap must not stand inside a reentrant checkpoint, but got {name!r} there; turn checkpointing off')
        recorder.values[name] = output.clone()


def _module(network, tap):
    try:
        return network.get_submodule(tap)
    except AttributeError:
        names = [name for name, _ in network.named_modules() if name]
        close = get_close_matches(tap, names, n=3, cutoff=0.3)
        raise ValueError(f'Tapped: a tap must name a module of {type(network).__name__}, but got {tap!r}; close to it: {", ".join(close)}') from None
