"""What the backbones of the P-pooling study and LIP-DenseNet share: a chain of stages, some of them taken out, frozen or left away."""

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .checkpoint import report_checkpoint


class StagedBackbone(BaseModule):
    """A chain of modules cut into stages; each stage's output may be taken.

    A subclass adds the modules of each stage and hands their names to :meth:`set_stages`. Stages behind the last one that is taken are left
    away, so no parameter goes unused.

    Args:
        out_indices: The stages whose outputs are returned.
        frozen_stages: How many of the first stages are not trained; -1 and 0 are none.
        norm_eval: Whether batch normalisations keep their statistics in training.
        pretrained: Checkpoint, as mmseg's segmentors hand it over; the same as ``init_cfg=dict(type='Pretrained', checkpoint=...)``.
        init_cfg: Initialisation config.

    Raises:
        ValueError: If both ``pretrained`` and ``init_cfg`` are given, or a stage of ``out_indices`` or ``frozen_stages`` does not exist.
    """

    def __init__(
        self,
        out_indices: tuple[int, ...],
        frozen_stages: int = -1,
        norm_eval: bool = False,
        pretrained: str | None = None,
        init_cfg: dict | list | None = None,
    ):
        if pretrained and init_cfg:
            raise ValueError(f'{type(self).__name__}: pretrained and init_cfg must not both be given, but got {pretrained!r} and {init_cfg}')
        super().__init__(dict(type='Pretrained', checkpoint=pretrained) if pretrained else init_cfg)
        self.out_indices, self.frozen_stages, self.norm_eval = tuple(out_indices), frozen_stages, norm_eval

    def set_stages(self, stages: list[list[str]]):
        """Fix the stages, leave away what no output needs and freeze what is to be frozen.

        Args:
            stages: For each stage the names of its modules, in the order in which they run.
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
        self.stages = stages[:used]
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
            for step in stage:
                input = self.run(step, input)
            if index in self.out_indices:
                outputs.append(input)
        return tuple(outputs)

    def init_weights(self):
        """Initialise; say what a checkpoint gave, and fail if it gave nothing."""
        with report_checkpoint(self):
            super().init_weights()

    def train(self, mode: bool = True):
        """Switch to training, except what is frozen."""
        super().train(mode)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        self._freeze()
        return self

    def _freeze(self):
        for stage in self.stages[: max(self.frozen_stages, 0)]:
            for step in stage:
                for key in self.modules_of(step):
                    self.get_submodule(key).eval().requires_grad_(False)


def build_pool(pool: dict, in_channels: int, kernel_size, stride, padding=0, ceil_mode: bool = False) -> nn.Module:
    """Build a pooling layer for a place in a network.

    Args:
        pool: Its config, which wins over the other arguments.
        in_channels: Channels at that place.
        kernel_size: Window edge in pixels, as for the other arguments of :class:`mmpool_ext.layers.window_pool.WindowPool2d`.
        stride: Distance of windows.
        padding: Border.
        ceil_mode: Whether partly filled windows count.

    Returns:
        The layer.
    """
    place = dict(in_channels=in_channels, kernel_size=kernel_size, stride=stride, padding=padding, ceil_mode=ceil_mode)
    return MODELS.build(dict(place, **pool))
