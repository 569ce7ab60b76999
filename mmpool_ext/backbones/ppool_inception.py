"""BN-Inception ("InceptionV2-BN") with another pooling: the P-pooling paper's FCN-8s of Tables 2, 3 and 5."""

import torch
import torch.nn.functional as F
from mmcv.cnn import build_conv_layer, build_norm_layer
from mmengine.registry import MODELS
from torch import nn

from ..layers import MaximumPool2d
from ..ops.tracing import traceable
from .pool import build_pool
from .staged import StagedBackbone

# Ioffe & Szegedy, Fig. 5: 1x1, 3x3 reduce, 3x3, double 3x3 reduce, double 3x3, pool, projection after it (0: none, and stride 2)
BLOCKS = {
    '3a': (64, 64, 64, 64, 96, 'average', 32),
    '3b': (64, 64, 96, 64, 96, 'average', 64),
    '3c': (0, 128, 160, 64, 96, 'max', 0),
    '4a': (224, 64, 96, 96, 128, 'average', 128),
    '4b': (192, 96, 128, 96, 128, 'average', 128),
    '4c': (160, 128, 160, 128, 160, 'average', 128),
    '4d': (96, 128, 192, 160, 192, 'average', 128),
    '4e': (0, 128, 192, 192, 256, 'max', 0),
    '5a': (352, 192, 320, 160, 224, 'average', 128),
    '5b': (352, 192, 320, 192, 224, 'max', 128),
}
STAGES = [
    ['conv1_7x7_s2'],
    ['pool1_3x3_s2', 'conv2_3x3_reduce', 'conv2_3x3'],
    ['pool2_3x3_s2', 'inception_3a', 'inception_3b'],
    ['inception_3c', 'inception_4a', 'inception_4b', 'inception_4c', 'inception_4d'],
    ['inception_4e', 'inception_5a', 'inception_5b'],
]


@MODELS.register_module()
class PPoolInceptionV2(StagedBackbone):
    """BN-Inception whose poolings, and the strides of its convolutions, are given by a config.

    The network: Ioffe & Szegedy, "Batch Normalization", ICML 2015. The surgery: Wei et al., "Building Detail-Sensitive Semantic Segmentation
    Networks with Polynomial Pooling", CVPR 2019, Sec. 4.2: "P-pooling replaces all down-sampling operations as well as other pooling layers
    whose stride is 1". So strided convolutions take stride 1 and are pooled after their ReLU, by 2x2 windows that cover odd edges. The public
    checkpoints in the ``bninception`` layout (``conv1_7x7_s2.weight``, ``inception_3a_1x1_bn.bias``; BGR images of 0 to 255 without their mean
    of 104, 117, 128) load under their own names. Unlike the Caffe original, which needs even maps, odd ones are repeated at their edge where
    a block pools with stride 2, so any image fits. P-pooling starts at the paper's 20 where there was max pooling, and at 0.01 in the place of
    the seven average poolings and of the strides, unless its config has an ``initial_alpha``.

    Args:
        pool: Config of the pooling layers; None is the network without surgery.
        out_indices: Outputs among 0 to 4: conv1, conv2, and the ends of inception 3b, 4d and 5b, of 64, 192, 320, 608 and 1024 channels and
            strides 2, 4, 8, 16 and 32.
        frozen_stages: How many of the first stages are not trained; -1 and 0 are none.
        in_channels: Channels of the image. Other than 3, the first convolution starts fresh beside a usual checkpoint.
        conv_cfg: Config of the convolutions.
        norm_cfg: Config of the normalisations, such as ``dict(type='SyncBN')``.
        norm_eval: Whether batch normalisations keep their statistics.
        with_cp: Whether stages are computed again in the backward pass.
        pretrained: Checkpoint.
        init_cfg: Initialisation config.
    """

    def __init__(
        self,
        pool: dict | None,
        out_indices: tuple[int, ...] = (2, 3, 4),
        frozen_stages: int = -1,
        in_channels: int = 3,
        conv_cfg: dict | None = None,
        norm_cfg: dict = dict(type='BN'),
        norm_eval: bool = False,
        with_cp: bool = False,
        pretrained: str | None = None,
        init_cfg: dict | list | None = None,
        **unknown,
    ):
        super().__init__(out_indices, frozen_stages, norm_eval, with_cp, pretrained, init_cfg, **unknown)
        self.pool, self.conv_cfg, self.norm_cfg = pool, conv_cfg, norm_cfg
        self._add_conv('conv1_7x7_s2', in_channels, 64, 7, 2)
        self._add_pool('pool1_3x3_s2', 64, 'max', 2)
        self._add_conv('conv2_3x3_reduce', 64, 64)
        self._add_conv('conv2_3x3', 64, 192, 3)
        self._add_pool('pool2_3x3_s2', 192, 'max', 2)
        channels = 192
        for block, (single, reduce3, conv3, reduce33, conv33, kind, projection) in BLOCKS.items():
            name, stride = f'inception_{block}', 1 if projection else 2
            if single:
                self._add_conv(f'{name}_1x1', channels, single)
            self._add_conv(f'{name}_3x3_reduce', channels, reduce3)
            self._add_conv(f'{name}_3x3', reduce3, conv3, 3, stride)
            self._add_conv(f'{name}_double_3x3_reduce', channels, reduce33)
            self._add_conv(f'{name}_double_3x3_1', reduce33, conv33, 3)
            self._add_conv(f'{name}_double_3x3_2', conv33, conv33, 3, stride)
            self._add_pool(f'{name}_pool', channels, kind, stride)
            if projection:
                self._add_conv(f'{name}_pool_proj', channels, projection)
            channels = single + conv3 + conv33 + (projection or channels)
        self.set_stages(STAGES, (64, 192, 320, 608, 1024), (2, 4, 8, 16, 32))

    def _add_conv(self, name, in_channels, channels, kernel_size=1, stride=1):
        """A convolution, its norm and, if ``pool`` takes over its stride, the pool after it."""
        pooled = stride == 2 and self.pool is not None
        conv = build_conv_layer(self.conv_cfg, in_channels, channels, kernel_size, 1 if pooled else stride, kernel_size // 2)
        nn.init.kaiming_normal_(conv.weight, mode='fan_out', nonlinearity='relu')
        nn.init.zeros_(conv.bias)
        self.add_module(name, conv)
        self.add_module(f'{name}_bn', build_norm_layer(self.norm_cfg, channels)[1])
        if pooled:
            pool = build_pool(self.pool, channels, 2, 2, ceil_mode=True, replaces='stride', owner='PPoolInceptionV2')
            self.add_module(f'{name}_stride', pool)

    def _add_pool(self, name, channels, kind, stride):
        window = dict(kernel_size=3, stride=stride, padding=0 if stride == 2 else 1, ceil_mode=stride == 2)
        if self.pool is not None:
            pool = build_pool(self.pool, channels, **window, replaces=kind, owner='PPoolInceptionV2')
        elif kind == 'max':
            pool = MaximumPool2d(channels, **window)
        else:
            pool = nn.AvgPool2d(**window)  # counts its padding, as Caffe's
        self.add_module(name, pool)

    def modules_of(self, step):
        """The modules whose names begin with a unit's or a block's."""
        return [
            name
            for name, _ in self.named_children()
            if name in (step, f'{step}_bn', f'{step}_stride') or (step in BLOCK_NAMES and name.startswith(f'{step}_'))
        ]

    def run(self, step, input):
        """Run a unit (convolution, norm, ReLU), a pool or a block."""
        if step in BLOCK_NAMES:
            return self._run_block(step, input)
        return self._run_pool(step, input) if step.startswith('pool') else self._run_conv(step, input)

    def _run_conv(self, name, input):
        output = F.relu(self.get_submodule(f'{name}_bn')(self.get_submodule(name)(input)))
        return self.get_submodule(f'{name}_stride')(output) if hasattr(self, f'{name}_stride') else output

    def _run_pool(self, name, input):
        pool = self.get_submodule(name)
        if pool.stride in (2, (2, 2)):  # a 3x3 window without padding misses half a step of an odd map
            input = even(input)
        return pool(input)

    def _run_block(self, name, input):
        branches = [self._run_conv(f'{name}_1x1', input)] if hasattr(self, f'{name}_1x1') else []
        branches.append(self._run_conv(f'{name}_3x3', self._run_conv(f'{name}_3x3_reduce', input)))
        double = self._run_conv(f'{name}_double_3x3_1', self._run_conv(f'{name}_double_3x3_reduce', input))
        branches.append(self._run_conv(f'{name}_double_3x3_2', double))
        pooled = self._run_pool(f'{name}_pool', input)
        branches.append(self._run_conv(f'{name}_pool_proj', pooled) if hasattr(self, f'{name}_pool_proj') else pooled)
        return torch.cat(branches, 1)


@traceable
def even(input: torch.Tensor) -> torch.Tensor:
    """Repeat the last row or column of an odd map."""
    rows, columns = ((edge + 1) // 2 * 2 - edge for edge in input.shape[2:])
    return F.pad(input, (0, columns, 0, rows), mode='replicate')


BLOCK_NAMES = {f'inception_{block}' for block in BLOCKS}
