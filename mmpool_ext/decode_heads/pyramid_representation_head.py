"""Pyramidal output representation: each pixel takes its label from the coarsest cell whose pixels all share one label."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmpool_ext.layers.coarse_to_fine_context import average_pyramid
from mmpool_ext.ops.pyramid import (
    RELABEL_MODES,
    VOID_RULES,
    check_strides,
    check_threshold,
    fuse_pyramid,
    label_pyramid,
    relabel_pyramid,
    upsample_cells,
)
from mmpool_ext.ops.tracing import top_left

from .geometry import check_stride, network_size
from .labelled_loss import LabelledLossHead, accuracy, criteria_of, labelled_loss

STRIDE_RULE = 'PyramidRepresentationHead: the last of strides must be the stride of the features, {}'
SUPERVISIONS = (*RELABEL_MODES, 'auxiliary', 'finest')


class Pyramid(NamedTuple):
    """What the head predicts, coarsest level first, on the features' grid padded to whole cells of the coarsest level.

    ``semantic``: class logits ``(N, C, h, w)`` of every level that has a classifier. ``unity``: logits ``(N, h, w)`` of every level but the
    finest, empty without a unity pyramid. ``size``: height and width of the features without padding.
    """

    semantic: list[Tensor]
    unity: list[Tensor]
    size: tuple[int, int]


class UnityHead(BaseModule):
    """Predict for each cell whether all its pixels share a label: one reduction, then a strided convolution a level (Section 3.2).

    Args:
        in_channels: Channels D of the features.
        channels: Channels D_u behind the reduction.
        num_levels: Levels L; the finest needs no prediction.
        norm_cfg: Norm of the reduction.
        act_cfg: Activation of the reduction.
    """

    def __init__(self, in_channels: int, channels: int, num_levels: int, norm_cfg, act_cfg):
        super().__init__(dict(type='Normal', std=0.01, override=dict(name='convs')))
        self.reduce = ConvModule(in_channels, channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        scales = [2**level for level in range(num_levels - 1, 0, -1)]
        self.convs = nn.ModuleList(nn.Conv2d(channels, 1, kernel_size=scale, stride=scale) for scale in scales)

    def forward(self, input):
        """Map ``(N, in_channels, H, W)`` to L - 1 maps of logits ``(N, h, w)``, coarsest first."""
        reduced = self.reduce(input)
        return [conv(reduced).squeeze(1) for conv in self.convs]


class PyramidRepresentationHead(LabelledLossHead):
    """Predict class maps at several scales and, for each pixel, the coarsest scale at which its cell has a single label.

    "Specialize and Fuse: Pyramidal Output Representation for Semantic Segmentation", ICCV 2021. In training every level learns the cells
    that no coarser level already gets right (Eq. 1); otherwise the head returns one map of logits, each pixel's from the level that the fuser chose
    (Eq. 2). :meth:`predict_pyramid` gives all levels, :meth:`fuse` the level map. Features whose size is no multiple of the coarsest cell are
    padded with their border, the output is cropped; labels beyond the border are void.

    Table 2a's settings: A ``context=None, supervision='finest'``; B ``context=dict(type='AsymmetricNonLocalContext'), supervision='finest'``;
    C ``supervision='finest'``; D, E, F ``context=None`` with ``supervision='raw'``, ``'gt'``, ``'tp'``; G the context of B with ``'tp'``;
    H the defaults; I ``supervision='auxiliary'``.

    Logits are compared with labels at their own resolution, the mean over L levels of ``loss_decode``, each on its labelled cells (see
    :func:`labelled_loss`); a cross entropy without ``avg_non_ignore=True`` divides by all cells, also those removed from the labels. A
    ``sampler`` (online hard pixel mining) works on the finest level and counts its pixels, not the image's.

    Args:
        strides: Cell edges in image pixels from the coarsest level to the finest, each half of the one before. The last one must be the
            stride of the features.
        context: The module that turns features into one map a level, built with ``in_channels``, ``channels``, ``num_levels``, ``norm_cfg``,
            ``act_cfg``; None averages the features alone.
        supervision: What is learnt. ``'tp'``, ``'gt'``, ``'raw'``: both pyramids, re-labelled as :func:`relabel_pyramid` says. ``'auxiliary'``:
            downsampled labels at all levels, the finest predicts. ``'finest'``: the finest level alone.
        unity_channels: Channels D_u of the unity head.
        unity_threshold: tau in (0, 1): a cell with this probability or more is taken as unit.
        unity_loss_weight: Factor of the unity pyramid's loss.
        void_rule: How void pixels count in a cell, see :func:`label_pyramid`.
        fuse_probabilities: Interpolate probabilities instead of logits to the image's size; log-probabilities leave the head.
        kwargs: Those of mmseg's ``BaseDecodeHead``; ``channels`` is D_s.
    """

    def __init__(
        self,
        strides: tuple[int, ...] = (32, 16, 8, 4),
        context: dict | None = dict(type='CoarseToFineContext'),
        supervision: str = 'tp',
        unity_channels: int = 128,
        unity_threshold: float = 0.5,
        unity_loss_weight: float = 1.0,
        void_rule: str = 'agree',
        fuse_probabilities: bool = False,
        **kwargs,
    ):
        check_strides('PyramidRepresentationHead', strides)
        check_threshold('PyramidRepresentationHead: unity_threshold', unity_threshold)
        for name, value, allowed in (('supervision', supervision, SUPERVISIONS), ('void_rule', void_rule, VOID_RULES)):
            if value not in allowed:
                raise ValueError(f'PyramidRepresentationHead: {name} must be one of {allowed}, but got {value!r}')
        kwargs.setdefault('loss_decode', dict(type='CrossEntropyLoss', use_sigmoid=False, avg_non_ignore=True))
        super().__init__(**kwargs)
        if fuse_probabilities and self.out_channels == 1:
            raise ValueError('PyramidRepresentationHead: fuse_probabilities must be False with one output channel, but got True')
        self.strides, self.supervision, self.void_rule = tuple(strides), supervision, void_rule
        self.unity_threshold, self.unity_loss_weight, self.fuse_probabilities = unity_threshold, unity_loss_weight, fuse_probabilities

        num_levels = len(strides)
        shared = dict(norm_cfg=self.norm_cfg, act_cfg=self.act_cfg)
        self.context, width = None, self.in_channels
        if context is not None:
            self.context = MODELS.build(dict(context, in_channels=width, channels=self.channels, num_levels=num_levels, **shared))
            width = self.channels
        num_classifiers = 1 if supervision == 'finest' else num_levels
        self.projections = nn.ModuleList(ConvModule(width, self.channels, 1, **shared) for _ in range(num_classifiers))
        # under the base class's name, so that its init_cfg and the usual paramwise keys reach every level's classifier
        self.conv_seg = nn.ModuleList(nn.Conv2d(self.channels, self.out_channels, 1) for _ in range(num_classifiers))
        self.unity_head = UnityHead(self.in_channels, unity_channels, num_levels, **shared) if supervision in RELABEL_MODES else None

    def cls_seg(self, feat):
        """Classify a list of feature maps, one for each classifier, coarsest first."""
        feat = [projection(level) for projection, level in zip(self.projections, feat, strict=True)]
        if self.dropout is not None:
            feat = [self.dropout(level) for level in feat]
        return [classifier(level) for classifier, level in zip(self.conv_seg, feat, strict=True)]

    def predict_pyramid(self, inputs) -> Pyramid:
        """Predict all levels from the backbone's outputs.

        Raises:
            ValueError: If the image is smaller than one cell of the coarsest level.
        """
        features = self._transform_inputs(inputs)
        height, width = features.shape[2:]
        cell = self.strides[0] // self.strides[-1]
        if min(height, width) < cell:
            raise ValueError(
                f'PyramidRepresentationHead: the coarsest stride {self.strides[0]} must not exceed the image, but got features of '
                f'{height} x {width} at stride {self.strides[-1]}; use fewer strides or larger images'
            )
        # As multiples of the cell: an exported graph has to know that the levels' sizes are multiples of each other
        rows, columns = ((edge + cell - 1) // cell * cell for edge in (height, width))
        features = F.pad(features, (0, columns - width, 0, rows - height), mode='replicate')
        levels = average_pyramid(features, len(self.strides)) if self.context is None else self.context(features)
        semantic = self.cls_seg(levels[-len(self.conv_seg) :])
        return Pyramid(semantic, [] if self.unity_head is None else self.unity_head(features), (height, width))

    def fuse(self, pyramid: Pyramid) -> tuple[Tensor, Tensor]:
        """Fuse the levels to logits ``(N, C, h, w)`` and the level map ``(N, h, w)`` of the features' size; 0 is the coarsest level."""
        height, width = pyramid.size
        if self.unity_head is None:
            fused = pyramid.semantic[-1]
            level = torch.full((fused.shape[0], *fused.shape[2:]), len(self.strides) - 1, device=fused.device)
        else:
            fused, level = fuse_pyramid(pyramid.semantic, pyramid.unity, self.unity_threshold)
        return top_left(fused, (height, width)), top_left(level, (height, width))

    def spread(self, pyramid: Pyramid) -> list[Tensor]:
        """Copy each level's logits to the features' grid, as the fuser sees them."""
        height, width = pyramid.size
        finest = pyramid.semantic[-1].shape[-1]
        return [upsample_cells(level, finest // level.shape[-1])[..., :height, :width] for level in pyramid.semantic]

    def forward(self, inputs):
        """Return a :class:`Pyramid` in training, fused logits ``(N, C, h, w)`` otherwise."""
        pyramid = self.predict_pyramid(inputs)
        return pyramid if self.training else self.fuse(pyramid)[0]

    def targets(self, label: Tensor, unity_logits: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Make a target for each predicted map from labels ``(N, H, W)`` that cover the padded grid, and from what the unity pyramid finds."""
        if self.supervision in RELABEL_MODES:
            semantic, unity = label_pyramid(label, self.strides, self.ignore_index, self.void_rule)
            return relabel_pyramid(semantic, unity, unity_logits, self.supervision, self.unity_threshold, self.ignore_index)
        return [label[:, stride // 2 :: stride, stride // 2 :: stride] for stride in self.strides[-len(self.conv_seg) :]], []

    def loss_by_feat(self, seg_logits: Pyramid, batch_data_samples) -> dict:
        """Compute Eq. 1, one entry for each level and pyramid; a level without a labelled cell contributes zero.

        Raises:
            ValueError: If the features do not have the stride of the finest level.
        """
        label = self._stack_batch_gt(batch_data_samples).squeeze(1).long()
        stride, (height, width) = self.strides[-1], seg_logits.size
        check_stride(STRIDE_RULE.format(stride), stride, seg_logits.size, label.shape[1:])
        rows, columns = (cells * stride for cells in seg_logits.semantic[-1].shape[2:])
        label = F.pad(label, (0, columns - label.shape[2], 0, rows - label.shape[1]), value=self.ignore_index)
        semantic, unity = self.targets(label, seg_logits.unity)

        losses: dict[str, Tensor] = {}
        criteria = criteria_of(self.loss_decode)
        for level_stride, logits, target in zip(self.strides[-len(semantic) :], seg_logits.semantic, semantic, strict=True):
            hard = self.sampler is not None and level_stride == stride
            weight = self.sampler.sample(logits, target[:, None]) if hard else None
            for criterion in criteria:
                name = f'{criterion.loss_name}.s{level_stride}'
                losses[name] = losses.get(name, 0) + labelled_loss(criterion, logits, target, self.ignore_index, weight) / len(semantic)
        for level_stride, logits, target in zip(self.strides[: len(unity)], seg_logits.unity, unity, strict=True):
            valid = target >= 0  # neither void nor removed because a coarser level gets it right
            value = F.binary_cross_entropy_with_logits(logits, (target == 1).to(logits), reduction='none')
            losses[f'loss_unity.s{level_stride}'] = self.unity_loss_weight / len(unity) * (value * valid).sum() / valid.sum().clamp(min=1)

        with torch.no_grad():
            finest = label[:, stride // 2 :: stride, stride // 2 :: stride][:, :height, :width]
            losses['acc_seg'] = accuracy(self.fuse(seg_logits)[0], finest, self.ignore_index, self.threshold)
        return losses

    def predict_by_feat(self, seg_logits: Tensor, batch_img_metas) -> Tensor:
        """Interpolate to the image's size: logits, or probabilities if ``fuse_probabilities``.

        Raises:
            ValueError: If the features do not have the stride of the finest level.
        """
        check_stride(STRIDE_RULE.format(self.strides[-1]), self.strides[-1], seg_logits.shape[2:], network_size(batch_img_metas))
        if not self.fuse_probabilities:
            return super().predict_by_feat(seg_logits, batch_img_metas)
        probability = super().predict_by_feat(seg_logits.softmax(1), batch_img_metas)
        return probability.clamp(min=torch.finfo(probability.dtype).tiny).log()
