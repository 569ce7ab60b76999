"""ResNet with poolings instead of strided convolutions: the P-pooling paper's Table 1."""

import torchvision
from torch import nn

from .pool import build_pool
from .staged import StagedBackbone, convert


class PPoolResNet(StagedBackbone):
    """ResNet without strided convolutions, pooled after conv1, res2c, res3d and res4f instead.

    Wei et al., "Building Detail-Sensitive Semantic Segmentation Networks with Polynomial Pooling", CVPR 2019, Sec. 4.1: "the pool1 layer
    remains unchanged. All strides in conv1, res3a, res4a and res5a stages are removed. Different pooling methods are inserted after the conv1
    layer and res2c, res3d and res4f layers". The poolings come after a ReLU. The inserted windows, which the paper leaves open, are 2x2
    with stride 2 and cover odd edges, so every size is that of the original. Torchvision's checkpoints load under their own names. P-pooling
    starts at the paper's 20 here ("each side-branch"), though no order would leave a pre-trained network as it was: it had strides there.

    Args:
        pool: Config of the inserted poolings. None leaves the strides: the network without surgery, 'Strided-C' and 'All-C' of Table 1.
        depth: 18, 34, 50, 101 or 152.
        out_indices: Outputs among 0 to 3: res2 to res5, before the pool that follows, of strides 4, 8, 16 and 32.
        frozen_stages: -1 freezes nothing, 0 the stem with its poolings, n the stem and the first n stages.
        in_channels: Channels of the image. Other than 3, the first convolution starts fresh beside a usual checkpoint.
        conv_cfg: Config of the convolutions.
        norm_cfg: Config of the normalisations, such as ``dict(type='SyncBN')``. None is torchvision's BatchNorm.
        norm_eval: Whether batch normalisations keep their statistics.
        with_cp: Whether stages are computed again in the backward pass.
        pretrained: Checkpoint.
        init_cfg: Initialisation config.

    Raises:
        ValueError: If ``depth`` is none of those.
    """

    def __init__(
        self,
        pool: dict | None,
        depth: int = 50,
        out_indices: tuple[int, ...] = (0, 1, 2, 3),
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
        depths = (18, 34, 50, 101, 152)
        if depth not in depths:
            raise ValueError(f'PPoolResNet: depth must be one of {depths}, but got {depth}')
        network = torchvision.models.get_model(f'resnet{depth}', weights=None)
        convert(network, in_channels, conv_cfg, norm_cfg)
        for name, child in network.named_children():
            if name not in ('avgpool', 'fc'):
                self.add_module(name, child)
        stages = [['conv1', 'bn1', 'relu', 'maxpool', 'layer1'], ['layer2'], ['layer3'], ['layer4']]
        width = network.fc.in_features // 8
        channels = (width, 2 * width, 4 * width, 8 * width)
        if pool is not None:
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    module.stride = (1, 1)
            for name, count in zip(('conv1', 'layer1', 'layer2', 'layer3'), (64, *channels[:3]), strict=True):
                self.add_module(f'{name}_pool', build_pool(pool, count, 2, 2, ceil_mode=True, owner='PPoolResNet'))
            stages = [['conv1', 'bn1', 'relu', 'conv1_pool', *stages[0][3:]], *([f'layer{i}_pool', f'layer{i + 1}'] for i in (1, 2, 3))]
        self.set_stages(stages, channels, (4, 8, 16, 32), stem=stages[0][:-1])
