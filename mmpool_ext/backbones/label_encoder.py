"""The light encoder that DUpsampling's paper feeds with labels to measure what an upsampling can restore (Section 4.1.1)."""

import math
from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class LabelEncoder(BaseModule):
    """Five 3x3 convolutions of stride 2, with normalisation and ReLU.

    Its input is the one-hot label map that :class:`LabelAsInput` makes of the ground truth.

    Args:
        in_channels: Channels of the input: the number of classes.
        channels: Channels of each convolution; the paper gives none.
        strides: Stride of each convolution. The paper's are all 2, which is stride 32; for stride 16 the last one is 1 here.
        norm_cfg: Normalisation.
        act_cfg: Activation.
        init_cfg: The paper's for all new layers: a normal distribution of variance 0.01.

    Raises:
        ValueError: If ``channels`` and ``strides`` differ in length.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int] = (64, 128, 256, 512, 512),
        strides: Sequence[int] = (2, 2, 2, 2, 2),
        norm_cfg: dict = dict(type='BN'),
        act_cfg: dict = dict(type='ReLU'),
        init_cfg: dict | None = dict(type='Normal', std=0.1, layer='Conv2d'),
    ):
        super().__init__(init_cfg)
        if len(channels) != len(strides):
            raise ValueError(f'LabelEncoder: strides must be as many as channels, but got {len(strides)} and {len(channels)}')
        self.layers = nn.Sequential()
        for out_channels, stride in zip(channels, strides, strict=True):
            self.layers.append(ConvModule(in_channels, out_channels, 3, stride, 1, norm_cfg=norm_cfg, act_cfg=act_cfg))
            in_channels = out_channels
        self.out_channels, self.out_strides = (in_channels,), (math.prod(strides),)

    def forward(self, input: Tensor) -> tuple[Tensor]:
        """Encode ``(N, in_channels, H, W)``; a tuple of one feature map."""
        return (self.layers(input),)
