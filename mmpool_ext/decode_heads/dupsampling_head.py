"""The decoder of DUpsampling, and the vanilla decoder of DeepLabv3+ that the paper compares it with."""

import torch
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmengine.registry import MODELS
from mmseg.models.decode_heads.sep_aspp_head import DepthwiseSeparableASPPModule
from mmseg.models.utils import resize
from torch import Tensor, nn

from ..layers.dupsampling import crop
from ..ops.tracing import is_symbolic
from .geometry import network_size
from .labelled_loss import LabelledLossHead, explain_batch_of_one


class _ASPP(nn.Module):
    """Separable atrous pyramid, image pooling, 1x1 projection and dropout (DeepLabv3+)."""

    def __init__(self, in_channels, channels, dilations, dropout_ratio, align_corners, **cfg):
        super().__init__()
        self.align_corners = align_corners
        self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvModule(in_channels, channels, 1, **cfg))
        self.branches = DepthwiseSeparableASPPModule(dilations=dilations, in_channels=in_channels, channels=channels, **cfg)
        self.projection = ConvModule((len(dilations) + 1) * channels, channels, 1, **cfg)
        self.dropout = nn.Dropout2d(dropout_ratio)

    def forward(self, input):
        pooled = resize(self.image_pool(input), input.shape[2:], mode='bilinear', align_corners=self.align_corners, warning=False)
        return self.dropout(self.projection(torch.cat([pooled, *self.branches(input)], dim=1)))


class BilinearFusionHead(LabelledLossHead):
    """The vanilla decoder (Fig. 1): features are fused at the size of the finest low-level feature (Eq. 7); logits are resized bilinearly.

    Unlike mmseg's ``DepthwiseSeparableASPPHead`` it takes any list of low-level features, or none, and has DeepLab's 1x1 projection after
    the ASPP.

    Args:
        in_channels: Channels of the feature map, or of the low-level features in the order of fusion and then of the feature map.
        channels: Channels of the ASPP and of the fusion.
        num_classes: Number of classes.
        dilations: Rates of the ASPP. None: the feature map is taken as given.
        low_level_channels: Channels that each low-level feature is reduced to by a 1x1 convolution.
        in_index: Index of the feature map, or of all that ``in_channels`` lists.
        norm_cfg: Normalisation.
        loss_decode: Losses. By default the mean of the cross entropy over the labelled pixels; mmseg's own default divides by void and padding too.
        init_cfg: The paper's: a normal distribution of variance 0.01. (DeepLab's code has the standard deviation 0.01.)
        **kwargs: As in mmseg's ``BaseDecodeHead``.
    """

    def __init__(
        self,
        in_channels,
        channels=256,
        *,
        num_classes,
        dilations=(1, 6, 12, 18),
        low_level_channels=48,
        in_index=-1,
        norm_cfg=dict(type='BN'),
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
        init_cfg=dict(type='Normal', std=0.1, layer='Conv2d'),
        **kwargs,
    ):
        super().__init__(
            in_channels,
            channels,
            num_classes=num_classes,
            in_index=in_index,
            input_transform='multiple_select' if isinstance(in_index, (list, tuple)) else None,
            norm_cfg=norm_cfg,
            loss_decode=loss_decode,
            init_cfg=init_cfg,
            **kwargs,
        )
        *low_level, last = in_channels if isinstance(in_channels, (list, tuple)) else [in_channels]
        cfg = dict(norm_cfg=norm_cfg, act_cfg=self.act_cfg)
        self.aspp = None
        if dilations is not None:
            self.aspp = _ASPP(last, channels, dilations, self.dropout_ratio, self.align_corners, conv_cfg=self.conv_cfg, **cfg)
            last = channels
        # Plain containers: mmengine calls init_weights of a ConvModule that it finds as a child, over init_cfg.
        self.reductions, self.fusions = nn.ModuleList(), nn.ModuleList()
        for low in low_level:
            self.reductions.append(nn.Sequential(ConvModule(low, low_level_channels, 1, conv_cfg=self.conv_cfg, **cfg)))
            self.fusions.append(
                nn.Sequential(
                    DepthwiseSeparableConvModule(last + low_level_channels, channels, 3, padding=1, **cfg),
                    DepthwiseSeparableConvModule(channels, channels, 3, padding=1, **cfg),
                )
            )
            last = channels
        self.conv_seg = nn.Conv2d(last, self.out_channels, kernel_size=1)

    def encode(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Select ``in_index`` and run the ASPP on the last feature map."""
        picked = self._transform_inputs(inputs)
        *low_level, last = picked if isinstance(picked, list) else [picked]
        return (*low_level, last if self.aspp is None else self.aspp(last))

    def fuse(self, encoded: tuple[Tensor, ...], size: torch.Size) -> Tensor:
        """Fuse the low-level features into the last, one after the other, at ``size``; each is resized before its channels are reduced."""
        *low_level, output = encoded
        for low, reduction, fusion in zip(low_level, self.reductions, self.fusions, strict=True):
            output = fusion(torch.cat([self._resized(output, size), reduction(self._resized(low, size))], dim=1))
        return output

    def _resized(self, input, size):
        if is_symbolic():  # one graph for every size: no short cut where the sizes allow one
            return resize(input, size, mode='bilinear', align_corners=self.align_corners, warning=False)
        if input.shape[2:] == size:
            return input
        (height, width), (out_height, out_width) = input.shape[2:], size
        smaller = 1 < out_height <= height and 1 < out_width <= width
        if self.align_corners and smaller and not ((height - 1) % (out_height - 1) or (width - 1) % (out_width - 1)):
            return input[..., :: (height - 1) // (out_height - 1), :: (width - 1) // (out_width - 1)]  # the samples fall on pixels: 129 to 33
        return resize(input, size, mode='bilinear', align_corners=self.align_corners)

    def decode(self, encoded: tuple[Tensor, ...]) -> Tensor:
        """Logits at the size of the finest feature, which mmseg's head resizes bilinearly."""
        finest = encoded[-1]
        for feature in encoded:  # max() with a key cannot be compiled
            finest = feature if feature.shape[2] > finest.shape[2] else finest
        return self.conv_seg(self.fuse(encoded, finest.shape[2:]))

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Logits of the backbone's features."""
        return self.decode(self.encode(inputs))


class DUpsamplingHead(BilinearFusionHead):
    """The decoder of Tian et al., "Decoders Matter for Semantic Segmentation", CVPR 2019 (Fig. 2), on an atrous pyramid.

    Every low-level feature is resized DOWN to the last feature map, then reduced and fused (Eq. 8); :class:`DUpsampling` makes full-size
    logits of the result. They are cropped to the label's size where the windows overhang, never stretched. The logits are divided by the
    learnt temperature, which is logged.

    Args:
        in_channels: Channels of the feature map, or of the low-level features in the order of fusion and then of the feature map.
        channels: Channels of the ASPP and of the fusion.
        num_classes: Number of classes.
        upsample: Arguments of :class:`DUpsampling` but ``out_channels``, such as ``dict(in_channels=64, scale_factor=16, weight='W.pth')``.
        objective: ``'classification'``: the losses of ``loss_decode`` on the full-size logits (Eq. 5). ``'regression'``: the squared distance to the
            compressed labels, per window that holds a label (Eq. 4), as ``loss_regression``; a first stage whose checkpoint the second one loads.
        **kwargs: As in :class:`BilinearFusionHead`.

    Raises:
        ValueError: If ``objective`` is unknown, ``out_channels`` is not ``num_classes``, or ``regression`` is used with a trainable W.
    """

    def __init__(self, in_channels, channels=256, *, num_classes, upsample, objective='classification', **kwargs):
        if objective not in ('classification', 'regression'):
            raise ValueError(f"DUpsamplingHead: objective must be 'classification' or 'regression', but got {objective!r}")
        if kwargs.get('out_channels', num_classes) not in (None, num_classes):
            raise ValueError(f'DUpsamplingHead: out_channels must be num_classes = {num_classes}, but got {kwargs["out_channels"]}')
        super().__init__(in_channels, channels, num_classes=num_classes, **kwargs)
        self.objective = objective
        self.upsample = MODELS.build(dict(type='DUpsampling', out_channels=num_classes) | upsample)
        self.reduce = nn.Conv2d(self.conv_seg.in_channels, self.upsample.in_channels, kernel_size=1)
        del self.conv_seg
        if objective == 'regression':
            if self.upsample.trainable:
                raise ValueError("DUpsamplingHead: upsample must have trainable=False with objective='regression', but got trainable=True")
            self.upsample.log_temperature.requires_grad_(False)

    def compressed(self, encoded: tuple[Tensor, ...]) -> Tensor:
        """Features that DUpsampling takes, at the size of the last feature map."""
        return self.reduce(self.fuse(encoded, encoded[-1].shape[2:]))

    def decode(self, encoded: tuple[Tensor, ...]) -> Tensor:
        """Logits of all windows, divided by the temperature."""
        return self.upsample(self.compressed(encoded))

    def loss(self, inputs, batch_data_samples, train_cfg) -> dict:
        """Losses of the chosen objective; see mmseg's ``BaseDecodeHead``."""
        if self.objective == 'classification':
            return super().loss(inputs, batch_data_samples, train_cfg)
        with explain_batch_of_one('DUpsamplingHead'):
            output = self.compressed(self.encode(inputs))
        target, mask = self.upsample.compress(self._stack_batch_gt(batch_data_samples).squeeze(1), self.ignore_index)
        distance = (crop(output, target.shape[2:], 1) - target).square().sum(dim=1, keepdim=True)
        return {'loss_regression': (distance * mask).sum() / mask.sum().clamp_min(1)}

    def at_label_size(self, seg_logits, size):
        """Crop logits to the size of the labels."""
        return crop(seg_logits, size, self.upsample.scale_factor)

    def loss_by_feat(self, seg_logits, batch_data_samples) -> dict:
        """Losses of the labelled pixels of the full-size logits, the accuracy and the temperature."""
        return super().loss_by_feat(seg_logits, batch_data_samples) | {'temperature': self.upsample.temperature.detach()}

    def predict_by_feat(self, seg_logits, batch_img_metas) -> Tensor:
        """Logits of the image or of the slide window, as it entered the network."""
        return crop(seg_logits, network_size(batch_img_metas), self.upsample.scale_factor)
