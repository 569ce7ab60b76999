"""Asymmetric non-local context in front of a pyramid: the paper's comparison, built on mmseg's own block."""

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmseg.models.decode_heads.ann_head import APNB
from torch import nn

from mmpool_ext.layers.coarse_to_fine_context import average_pyramid, pyramid_sampling


class PyramidSampling(nn.Module):
    """:func:`pyramid_sampling` in the place of mmseg's ``PPMConcat``, whose adaptive poolings cannot be exported."""

    def __init__(self, pool_scales: tuple[int, ...]):
        super().__init__()
        self.pool_scales = tuple(pool_scales)

    def forward(self, input):
        """Map ``(N, C, H, W)`` to tokens ``(N, C, S)``."""
        return pyramid_sampling(input, self.pool_scales).squeeze(3)


class AsymmetricNonLocalContext(BaseModule):
    """One asymmetric pyramid non-local block on the finest level, averaged to the other levels.

    "ANL" in Table 2a of "Specialize and Fuse". The paper does not say what comes before the block. Here it is a 1x1 reduction, as in
    :class:`CoarseToFineContext`, so that the two differ in the context only.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        num_levels: Levels of the output, >= 1.
        key_channels: Width of query, key and value.
        pool_scales: Edges of the grids that keys and values are pooled to.
        norm_cfg: Norm layers; None for none.
        act_cfg: Activation layers.
        init_cfg: mmengine's initialisation.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        num_levels: int = 4,
        key_channels: int = 256,
        pool_scales: tuple[int, ...] = (1, 3, 6, 8),
        norm_cfg: dict | None = dict(type='BN'),
        act_cfg: dict = dict(type='ReLU'),
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        self.num_levels = num_levels
        self.reduce = ConvModule(in_channels, channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.block = APNB(
            in_channels=channels,
            channels=key_channels,
            out_channels=channels,
            query_scales=(1,),
            key_pool_scales=pool_scales,
            conv_cfg=None,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
        )
        for stage in self.block.stages:
            stage.key_downsample = PyramidSampling(pool_scales)

    def forward(self, input):
        """Map features ``(N, in_channels, H, W)``, H and W multiples of ``2 ** (num_levels - 1)``, to L maps of ``channels``, coarsest first."""
        return average_pyramid(self.block(self.reduce(input)), self.num_levels)
