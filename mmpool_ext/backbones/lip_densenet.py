"""LIP-DenseNet (Gao et al., "LIP: Local Importance-based Pooling", ICCV 2019, section 3.3)."""

import re

import torchvision
from torch import nn

from ..layers import BottleneckTrunk, LIPPool2d
from .pool import build_pool, class_of, refuse_small
from .staged import StagedBackbone, convert

OLD_NAME = re.compile(r'(denselayer\d+\.(?:norm|conv))\.([12]\.)')


class LIPDenseNet(StagedBackbone):
    """DenseNet-BC that downsamples by LIP: the stem's max pooling (3x3) and the transitions' average poolings (2x2), 4 LIPs.

    The stem's logit is one 3x3 convolution; each transition has its own bottleneck logit, computed from the output of its 1x1 convolution. Keys are
    torchvision's, and torchvision's checkpoints load, those of before 2018 too. Every output has passed its norm and ReLU: the one at the
    head of the transition that follows or, for the last, ``norm5``.

    Args:
        depth: 121 as the paper, 161, 169 or 201.
        pool: Config of the poolings, or None for the plain DenseNet. A ``LIPPool2d`` without ``logit`` has the paper's logits.
        out_indices: Outputs among 0 to 3: the dense blocks, of strides 4, 8, 16 and 32. Blocks after the last of them are removed.
        frozen_stages: How many of the first stages are not trained; -1 and 0 are none; the first stage holds the stem.
        in_channels: Channels of the image. Other than 3, the first convolution starts fresh beside a usual checkpoint.
        conv_cfg: Config of the convolutions.
        norm_cfg: Config of the normalisations, such as ``dict(type='SyncBN')``. None is torchvision's BatchNorm. The logits keep their
            InstanceNorm.
        norm_eval: Whether batch normalisations keep their statistics.
        with_cp: Recompute the dense layers' concatenations in the backward pass instead of keeping them.
        pretrained: Checkpoint.
        init_cfg: Initialisation config.

    Raises:
        ValueError: If ``depth`` or a stage is none of those.

    Example:
        >>> import torch
        >>> from mmpool_ext import LIPDenseNet
        >>> [tuple(level.shape) for level in LIPDenseNet(121)(torch.rand(1, 3, 64, 64))]
        [(1, 256, 16, 16), (1, 512, 8, 8), (1, 1024, 4, 4), (1, 1024, 2, 2)]
    """

    def __init__(
        self,
        depth: int = 121,
        pool: dict | None = dict(type='LIPPool2d'),
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
        super().__init__(out_indices, frozen_stages, norm_eval, False, pretrained, init_cfg, **unknown)
        depths = (121, 161, 169, 201)
        if depth not in depths:
            raise ValueError(f'LIPDenseNet: depth must be one of {depths}, but got {depth}')
        self.features = torchvision.models.get_model(f'densenet{depth}', weights=None, memory_efficient=with_cp).features
        channels = [norm.num_features for norm in (*(getattr(self.features, f'transition{i}').norm for i in (1, 2, 3)), self.features.norm5)]
        convert(self.features, in_channels, conv_cfg, norm_cfg)
        self.features.add_module('relu5', nn.ReLU())
        if pool is not None:
            self._replace_pools(pool)
        stages = [['conv0', 'norm0', 'relu0', 'pool0']]
        for i in (1, 2, 3):
            stages[-1] += [f'denseblock{i}', f'transition{i}.norm', f'transition{i}.relu']
            stages.append([f'transition{i}.conv', f'transition{i}.pool'])
        stages[-1] += ['denseblock4', 'norm5', 'relu5']
        self.set_stages([[f'features.{step}' for step in stage] for stage in stages], channels, (4, 8, 16, 32))
        self.min_size = max(3, 2 ** (len(self.stages) + 1) - 3)  # the last LIP sees 2x2 positions
        self._register_load_state_dict_pre_hook(_rename, with_module=True)

    def _replace_pools(self, pool):
        features, logit = self.features, {}
        if class_of(pool, 'LIPDenseNet') is LIPPool2d:
            logit = dict(logit=dict(type='BottleneckLogit'))
        features.pool0 = build_pool(pool, features.conv0.out_channels, 3, 2, 1, owner='LIPDenseNet')
        for transition in (features.transition1, features.transition2, features.transition3):
            transition.pool = build_pool(dict(logit, **pool), transition.conv.out_channels, 2, 2, replaces='average', owner='LIPDenseNet')
        for module in features.modules():
            if isinstance(module, BottleneckTrunk):
                module.fan = 'fan_in'  # as torchvision and the authors' DenseNet
                module.draw()

    def forward(self, input):
        """Compute the outputs, a tuple with one map ``(N, C_i, H_i, W_i)`` for each of ``out_indices``.

        Raises:
            ValueError: If the images ``(N, in_channels, H, W)`` are so small that a pooling would see a single position.
        """
        refuse_small('LIPDenseNet', input, self.min_size)
        return super().forward(input)


def _rename(module, state_dict, prefix, *_):
    """Give the keys of torchvision's own checkpoints, such as ``denselayer1.norm.1.weight``, their present names."""
    for key in [key for key in state_dict if key.startswith(prefix) and OLD_NAME.search(key)]:
        state_dict[OLD_NAME.sub(r'\1\2', key)] = state_dict.pop(key)
