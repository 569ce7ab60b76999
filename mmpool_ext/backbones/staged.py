"""The base class of the P-pooling study's backbones and of LIP-DenseNet: a chain of stages."""

import inspect
from collections.abc import Sequence

import torch.utils.checkpoint
from mmcv.cnn import build_conv_layer, build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .checkpoint import report_checkpoint, report_later_checkpoints


class StagedBackbone(BaseModule):
    """A chain of modules divided into stages; the output of each stage can be returned.

    A subclass adds the modules of each stage and passes their names to :meth:`set_stages`. Stages after the last of ``out_indices`` are
    removed, so that every parameter is used. ``out_channels`` and ``out_strides`` are those of the returned maps.

    Args:
        out_indices: The stages whose outputs are returned.
        frozen_stages: How many of the first stages are not trained, as upstream: -1 is none, and 0 is a ResNet's stem; in other networks, where
            the stem is a part of the first stage, 0 is none.
        norm_eval: Whether batch normalisations keep their statistics in training.
        with_cp: Whether stages are computed again in the backward pass instead of keeping what is inside of them. As upstream, a batch
            normalisation counts the batch twice then.
        pretrained: Checkpoint, as mmseg's segmentors pass it; the same as ``init_cfg=dict(type='Pretrained', checkpoint=...)``.
        init_cfg: Initialisation config.
        **unknown: Not allowed: arguments that a config inherits from another backbone.

    Raises:
        TypeError: If there are unknown arguments.
        ValueError: If both ``pretrained`` and ``init_cfg`` are given, or a stage of ``out_indices`` or ``frozen_stages`` does not exist.
    """

    def __init__(
        self,
        out_indices: tuple[int, ...],
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        pretrained: str | None = None,
        init_cfg: dict | list | None = None,
        **unknown,
    ):
        refuse_unknown(type(self), unknown)
        if pretrained and init_cfg:
            raise ValueError(f'{type(self).__name__}: pretrained and init_cfg must not both be given, but got {pretrained!r} and {init_cfg}')
        super().__init__(dict(type='Pretrained', checkpoint=pretrained) if pretrained else init_cfg)
        self.out_indices, self.frozen_stages, self.norm_eval = tuple(out_indices), frozen_stages, norm_eval
        self.with_cp = with_cp
        self.pool_starts = PoolStarts(self)
        report_later_checkpoints(self)

    def set_stages(self, stages: list[list[str]], channels: Sequence[int], strides: Sequence[int], stem: Sequence[str] = ()):
        """Set the stages, remove those after the last output and freeze the first ``frozen_stages``.

        Args:
            stages: For each stage the names of its modules, in the order in which they run.
            channels: Of each stage's output.
            strides: Of each stage's output, in pixels of the image.
            stem: The modules of the first stage that ``frozen_stages=0`` freezes.
        """
        name = type(self).__name__
        if not self.out_indices or not all(0 <= index < len(stages) for index in self.out_indices):
            raise ValueError(f'{name}: out_indices must be among the stages 0 to {len(stages) - 1}, but got {self.out_indices}')
        used = max(self.out_indices) + 1
        if self.frozen_stages > used:
            raise ValueError(f'{name}: frozen_stages must be at most the {used} stages in use, but got {self.frozen_stages}')
        for step in (step for stage in stages[used:] for step in stage):
            for key in self.modules_of(step):
                parent, _, child = key.rpartition('.')
                delattr(self.get_submodule(parent), child)
        self.stages, self.stem = stages[:used], tuple(stem)
        self.out_channels = tuple(channels[index] for index in sorted(self.out_indices))
        self.out_strides = tuple(strides[index] for index in sorted(self.out_indices))
        self._freeze()

    def modules_of(self, step: str) -> list[str]:
        """Names of the modules that a step of a stage uses: by default the one of that name."""
        return [step]

    def run(self, step: str, input: Tensor) -> Tensor:
        """Run one step of a stage."""
        return self.get_submodule(step)(input)

    def forward(self, input: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the stages in ``out_indices``, in the order of the stages."""
        outputs = []
        for index, stage in enumerate(self.stages):
            if self.with_cp and torch.is_grad_enabled():
                input = torch.utils.checkpoint.checkpoint(self._run_stage, stage, input, use_reentrant=False)
            else:
                input = self._run_stage(stage, input)
            if index in self.out_indices:
                outputs.append(input)
        return tuple(outputs)

    def _run_stage(self, stage, input):
        for step in stage:
            input = self.run(step, input)
        return input

    def init_weights(self):
        """Initialise; log which tensors a checkpoint filled, and raise if it filled none."""
        with report_checkpoint(self):
            super().init_weights()

    def start_pools(self):
        """Let the poolings start as they prescribe."""
        for child in self.children():
            if not hasattr(child, 'init_weights'):  # the others are reached by mmengine
                start_inside(child)

    def train(self, mode: bool = True):
        """Set the mode; frozen stages stay in eval mode."""
        super().train(mode)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        self._freeze()
        return self

    def _freeze(self):
        frozen = [] if self.frozen_stages < 0 else [self.stem, *self.stages[: self.frozen_stages]]
        for stage in frozen:
            for step in stage:
                for key in self.modules_of(step):
                    self.get_submodule(key).eval().requires_grad_(False)


class PoolStarts(BaseModule):
    """Calls ``start_pools`` when mmengine has applied ``init_cfg`` to every convolution and not yet loaded a checkpoint.

    That is when it initialises a module's children; it finds none inside of torch's containers, where these networks have their poolings.

    Args:
        network: The backbone.
    """

    def __init__(self, network: StagedBackbone):
        super().__init__()
        self.networks = (network,)  # in a tuple it is no child

    def init_weights(self):
        """Let the network's poolings start."""
        self.networks[0].start_pools()


def start_inside(module: nn.Module):
    """Call ``init_weights`` of the topmost modules inside of ``module`` that have one."""
    for child in module.children():
        start = getattr(child, 'init_weights', None)
        if start is None:
            start_inside(child)
        elif not getattr(child, 'is_init', False):
            start()


def refuse_unknown(cls: type, unknown: dict):
    """Raise for arguments that a backbone does not have, and say how to drop those of an inherited config.

    Raises:
        TypeError: If there are any.
    """
    if unknown:
        known = [name for name in inspect.signature(cls.__init__).parameters if name not in ('self', 'unknown')]
        raise TypeError(
            f'{cls.__name__}: arguments must be among {", ".join(known)}, but got {", ".join(sorted(unknown))}; '
            'in a config that inherits another backbone, backbone=dict(_delete_=True, ...) drops the arguments of that one'
        )


def convert(network: nn.Module, in_channels: int = 3, conv_cfg: dict | None = None, norm_cfg: dict | None = None):
    """Replace the layers of a network from another package as OpenMMLab's configs ask for.

    Args:
        network: Edited in place; names of parameters stay. No poolings have been put into it yet.
        in_channels: Channels of the image. Other than 3, the first convolution is drawn anew.
        conv_cfg: Config of the convolutions. None: they stay as they are.
        norm_cfg: Config of the normalisations. None: they stay as they are.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                channels = in_channels if child.in_channels == 3 else child.in_channels
                if conv_cfg is None and channels == child.in_channels:
                    continue
                window = child.kernel_size, child.stride, child.padding, child.dilation
                layer = build_conv_layer(conv_cfg, channels, child.out_channels, *window, child.groups, bias=child.bias is not None)
                nn.init.kaiming_normal_(layer.weight, mode='fan_out', nonlinearity='relu')
                if child.bias is not None:
                    nn.init.zeros_(layer.bias)
                setattr(parent, name, layer)
            elif isinstance(child, nn.ReLU):
                child.inplace = False  # in place, a backward hook of the norm before it would fail
            elif isinstance(child, _BatchNorm) and norm_cfg is not None:
                setattr(parent, name, build_norm_layer(norm_cfg, child.num_features)[1])
