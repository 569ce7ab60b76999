"""The coarse-to-fine contextual module of "Specialize and Fuse": each level gets the context of the coarser levels."""

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_activation_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import nn

from ..ops.tracing import is_exporting


def average_pyramid(input, num_levels):
    """Average pool ``(N, C, H, W)`` to ``num_levels`` levels, coarsest first, the last being ``input`` itself; each is half the next."""
    levels = [input]
    while len(levels) < num_levels:
        levels.insert(0, F.avg_pool2d(levels[0], 2))
    return levels


def pyramid_sampling(input, pool_scales):
    """Average pool ``(N, C, H, W)`` to each of the square grids and return their cells as tokens ``(N, C, S, 1)``, ``S = sum(scale ** 2)``."""
    # ONNX has no adaptive pooling, and its decomposition in an exported graph holds for one size
    pool = grid_means if is_exporting() else F.adaptive_avg_pool2d
    return torch.cat([pool(input, scale).flatten(2) for scale in pool_scales], 2).unsqueeze(3)


def grid_means(input, scale):
    """Compute ``F.adaptive_avg_pool2d(input, scale)`` as two products with matrices that follow the size of ``input`` in an exported graph."""
    rows, columns = (_cell_weights(edge, scale, input) for edge in input.shape[2:])
    return rows @ input @ columns.transpose(0, 1)


def _cell_weights(edge, scale, like):
    """The weights ``(scale, edge)`` of each pixel in the mean of each cell; a pixel on a border counts in both cells, as in PyTorch."""
    pixel, cell = torch.arange(edge, device=like.device), torch.arange(scale, device=like.device)[:, None]
    inside = (pixel >= cell * edge // scale) & (pixel < ((cell + 1) * edge + scale - 1) // scale)
    inside = inside.to(like.dtype)
    return inside / inside.sum(1, keepdim=True)


class ContextAttention(BaseModule):
    """Attend from every pixel to the context tokens: ``softmax(q k^T / sqrt(key_channels)) v``.

    Query, key and value are plain 1x1 convolutions.

    Args:
        channels: Channels of the features, of the tokens and of the output.
        key_channels: Width of query and key.
    """

    def __init__(self, channels: int, key_channels: int, init_cfg=None):
        super().__init__(init_cfg)
        self.query = nn.Conv2d(channels, key_channels, 1)
        self.key = nn.Conv2d(channels, key_channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)

    def forward(self, input, context):
        """Map features ``(N, C, H, W)`` and tokens ``(N, C, S, 1)`` to ``(N, C, H, W)``."""
        query, key, value = self.query(input).flatten(2), self.key(context).flatten(2), self.value(context).flatten(2)
        weight = (key.transpose(1, 2) @ query * key.shape[1] ** -0.5).softmax(1)  # (N, S, H * W): no transposed copy of a feature map
        return (value @ weight).view_as(input)


class ResidualAggregation(BaseModule):
    """Project to ``channels``, then add two 3x3 convolutions to the projection."""

    def __init__(self, in_channels: int, channels: int, norm_cfg, act_cfg, init_cfg=None):
        super().__init__(init_cfg)
        self.project = ConvModule(in_channels, channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.conv1 = ConvModule(channels, channels, 3, padding=1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.conv2 = ConvModule(channels, channels, 3, padding=1, norm_cfg=norm_cfg, act_cfg=None)
        self.activate = build_activation_layer(act_cfg)

    def forward(self, input):
        """Map ``(N, in_channels, H, W)`` to ``(N, channels, H, W)``."""
        input = self.project(input)
        return self.activate(input + self.conv2(self.conv1(input)))


@MODELS.register_module()
class CoarseToFineContext(BaseModule):
    """Spread global context over a pyramid of features, from the coarsest level to the finest.

    ``X'(l) = F_agg(concat(Attention(X(l), theta(l-1)), X(l)))`` and ``theta(l) = F_upd(concat(PyramidSampling(X'(l)), theta(l-1)))``:
    Eq. 3 and 4 of "Specialize and Fuse: Pyramidal Output Representation for Semantic Segmentation", ICCV 2021. ``X(L)`` is the input behind
    a 1x1 reduction, the other ``X(l)`` its averages, ``theta(0) = PyramidSampling(X(L))``. F_agg is a 1x1 convolution on the finest level and
    a residual block above it, F_upd a 1x1 convolution. What the paper leaves open: those convolutions and the reduction carry a norm and an
    activation, and the residual block is a projection and two 3x3 convolutions, which meets the paper's cost (Section 3.4).

    Args:
        in_channels: Channels D of the input.
        channels: Channels D_s of everything inside and of the output.
        num_levels: Levels L, >= 1.
        key_channels: Width of the attention's query and key.
        pool_scales: Edges of PyramidSampling's grids.
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
        self.num_levels, self.pool_scales = num_levels, tuple(pool_scales)
        self.reduce = ConvModule(in_channels, channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.attentions = nn.ModuleList(ContextAttention(channels, key_channels) for _ in range(num_levels))
        self.aggregations = nn.ModuleList(ResidualAggregation(2 * channels, channels, norm_cfg, act_cfg) for _ in range(num_levels - 1))
        self.aggregations.append(ConvModule(2 * channels, channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg))
        self.updates = nn.ModuleList(ConvModule(2 * channels, channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg) for _ in range(num_levels - 1))

    def forward(self, input):
        """Map features ``(N, in_channels, H, W)``, H and W multiples of ``2 ** (num_levels - 1)``, to L maps of ``channels``, coarsest first."""
        finest = self.reduce(input)
        context = pyramid_sampling(finest, self.pool_scales)
        outputs = []
        for level, features in enumerate(average_pyramid(finest, self.num_levels)):
            attended = self.attentions[level](features, context)
            outputs.append(self.aggregations[level](torch.cat([attended, features], 1)))
            if level < self.num_levels - 1:
                context = self.updates[level](torch.cat([pyramid_sampling(outputs[-1], self.pool_scales), context], 1))
        return outputs
