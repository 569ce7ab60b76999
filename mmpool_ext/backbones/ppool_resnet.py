"""ResNet that pools where it had strides: the P-pooling paper's Table 1."""

import torchvision
from torch import nn

from .staged import StagedBackbone, build_pool


class PPoolResNet(StagedBackbone):
    """ResNet without strided convolutions, pooled after conv1, res2c, res3d and res4f instead.

    Wei et al., "Building Detail-Sensitive Semantic Segmentation Networks with Polynomial Pooling", CVPR 2019, Sec. 4.1: "the pool1 layer
    remains unchanged. All strides in conv1, res3a, res4a and res5a stages are removed. Different pooling methods are inserted after the conv1
    layer and res2c, res3d and res4f layers". What is pooled has passed a ReLU. The inserted windows, which the paper leaves open, are 2x2
    with stride 2 and cover odd edges, so every size is that of the original. Torchvision's checkpoints load under their own names.

    Args:
        pool: Config of the inserted poolings. None leaves the strides: the network without surgery, 'Strided-C' and 'All-C' of Table 1.
        depth: 18, 34, 50, 101 or 152.
        out_indices: Outputs among 0 to 3: res2 to res5, before the pool that follows, of strides 4, 8, 16 and 32.
        frozen_stages: See :class:`StagedBackbone`, as for ``norm_eval``, ``pretrained`` and ``init_cfg``. The first stage holds the stem.
        norm_eval: Whether batch normalisations keep their statistics.
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
        norm_eval: bool = False,
        pretrained: str | None = None,
        init_cfg: dict | list | None = None,
    ):
        super().__init__(out_indices, frozen_stages, norm_eval, pretrained, init_cfg)
        depths = (18, 34, 50, 101, 152)
        if depth not in depths:
            raise ValueError(f'PPoolResNet: depth must be one of {depths}, but got {depth}')
        network = torchvision.models.get_model(f'resnet{depth}', weights=None)
        for name, child in network.named_children():
            if name not in ('avgpool', 'fc'):
                self.add_module(name, child)
        stages = [['conv1', 'bn1', 'relu', 'maxpool', 'layer1'], ['layer2'], ['layer3'], ['layer4']]
        if pool is not None:
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    module.stride = (1, 1)
            width = network.fc.in_features // 8
            channels = dict(conv1=64, layer1=width, layer2=2 * width, layer3=4 * width)
            for name, count in channels.items():
                self.add_module(f'{name}_pool', build_pool(pool, count, 2, 2, ceil_mode=True))
            stages = [['conv1', 'bn1', 'relu', 'conv1_pool', *stages[0][3:]], *([f'layer{i}_pool', f'layer{i + 1}'] for i in (1, 2, 3))]
        self.set_stages(stages)
