"""Chollet's Xception with another pooling and less stride: the P-pooling paper's Deeplabv3 of Tables 2, 3 and 5."""

import timm
import torch
from torch import nn

from .pool import build_pool
from .repooled import repool
from .staged import StagedBackbone, convert

STAGES = [
    ['conv1', 'bn1', 'act1', 'conv2', 'bn2', 'act2'],
    ['block1'],
    ['block2'],
    [f'block{index}' for index in range(3, 12)],
    ['block12', 'conv3', 'bn3', 'act3', 'conv4', 'bn4', 'act4'],
]


class PPoolXception(StagedBackbone):
    """Xception ("Xception-38") whose poolings and strided convolutions are given by a config, with dilations in place of late strides.

    The network: Chollet, "Xception", CVPR 2017, as timm's ``legacy_xception``, whose checkpoints load under their own names. The surgery: Wei et
    al., "Building Detail-Sensitive Semantic Segmentation Networks with Polynomial Pooling", CVPR 2019, Sec. 4.2, and its authors' code: the
    blocks' max poolings (3x3, at the end of the residual branch) become ``pool``, and so does the stride of conv1: 3x3 with stride 2, after the
    norm and the ReLU. A pooling whose stride is removed stays with stride 1. The strides of the shortcuts' 1x1 convolutions become ``pool``
    too, 2x2 with stride 2 and directly after the convolution, see :func:`Repooled`: "all down-sampling operations" in the paper, where the
    published code keeps them; the windows are our choice, and P-pooling starts at 0.01 there, elsewhere at 20. The two convolutions of the stem
    are padded here, which they are not originally, so that every map is the image's size over its stride; conv1's pool is padded by 1 (the
    authors: by 2, after a convolution without padding).

    Args:
        pool: Config of the pooling layers; None keeps Chollet's max poolings and strided convolutions.
        output_stride: 32, 16 (block 12 has no stride) or 8 (nor has block 3, and blocks 4 to 11 are dilated by 2).
        multi_grid: Dilations of block 12, conv3 and conv4, as multiples of what the removed strides call for.
        pool_skips: Whether the strided 1x1 convolutions of the shortcuts are replaced too. False is the authors' published code.
        out_indices: Outputs among 0 to 4: conv2, block 1, block 2, block 11 and conv4, of 64, 128, 256, 728 and 2048 channels.
        frozen_stages: How many of the first stages are not trained; -1 and 0 are none.
        in_channels: Channels of the image. Other than 3, the first convolution starts fresh beside a usual checkpoint.
        conv_cfg: Config of the convolutions.
        norm_cfg: Config of the normalisations, such as ``dict(type='SyncBN')``. None is timm's BatchNorm.
        norm_eval: Whether batch normalisations keep their statistics.
        with_cp: Whether stages are computed again in the backward pass.
        pretrained: Checkpoint.
        init_cfg: Initialisation config.

    Raises:
        ValueError: If ``output_stride`` is none of those.
    """

    def __init__(
        self,
        pool: dict | None,
        output_stride: int = 16,
        multi_grid: tuple[int, int, int] = (1, 2, 4),
        pool_skips: bool = True,
        out_indices: tuple[int, ...] = (4,),
        frozen_stages: int = -1,
        in_channels: int = 3,
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        norm_eval: bool = False,
        with_cp: bool = False,
        pretrained: str | None = None,
        init_cfg: dict | list | None = None,
        **unknown,
    ):
        super().__init__(out_indices, frozen_stages, norm_eval, with_cp, pretrained, init_cfg, **unknown)
        removed = {32: [], 16: ['block12'], 8: ['block3', 'block12']}
        if output_stride not in removed:
            raise ValueError(f'PPoolXception: output_stride must be one of {list(removed)}, but got {output_stride}')
        for name, child in timm.create_model('legacy_xception', num_classes=0).named_children():
            if name not in ('global_pool', 'fc'):
                self.add_module(name, child)
        convert(self, in_channels, conv_cfg, norm_cfg)
        self.conv1.padding = self.conv2.padding = (1, 1)
        for name in removed[output_stride]:
            block = self.get_submodule(name)
            block.rep[-1].stride, block.skip.stride = 1, (1, 1)
        if output_stride == 8:
            for index in range(4, 12):
                _dilate(self.get_submodule(f'block{index}'), 2)
        if output_stride < 32:
            for name, grid in zip(('block12', 'conv3', 'conv4'), multi_grid, strict=True):
                _dilate(self.get_submodule(name), 32 // output_stride * grid)
        stages = [list(stage) for stage in STAGES]
        if pool is not None:
            self.conv1.stride = (1, 1)
            self.pool1 = build_pool(pool, self.conv1.out_channels, 3, 2, 1, owner='PPoolXception')
            stages[0].insert(3, 'pool1')
        strides = [min(stride, output_stride) for stride in (2, 4, 8, 16, 32)]
        self.set_stages(stages, (64, 128, 256, 728, 2048), strides)
        where = r'block\d+\.rep\.\d+' + (r'|block\d+\.skip' if pool_skips else '')
        if pool is not None and max(self.out_indices) > 0:
            repool(self, pool, where, torch.zeros(1, in_channels, 64, 64))


def _dilate(module, dilation):
    """Spread the 3x3 convolutions below ``module``."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
            conv.dilation = conv.padding = (dilation, dilation)
