"""FCN-8s: score maps of three strides, added up from coarse to fine."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.tracing import is_exporting
from .geometry import check_stride, network_size
from .labelled_loss import LabelledLossHead

STRIDE_RULE = 'FCN8sHead: the first of in_index must be a map of stride 8'


class FCN8sHead(LabelledLossHead):
    """Score three feature maps and fuse the scores by learnt x2 upsampling; mmseg's resizing makes the last x8.

    Long, Shelhamer & Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015, Sec. 4.2, whose initial state is kept: the
    two x2 upsamplings start as bilinear interpolation, the scores of the finer maps at zero, so that training starts from FCN-32s. In the
    P-pooling paper (CVPR 2019, Table 4) the head of InceptionV2-BN.

    Args:
        in_channels: Channels of the maps with stride 8, 16 and 32.
        in_index: Their places among the backbone's outputs.
        **kwargs: Arguments of mmseg's ``BaseDecodeHead`` but ``channels`` and ``input_transform``, which follow from these.

    Raises:
        ValueError: If there are not three maps; when called, if one has not twice the size of the next, give or take a pixel;
            in loss and prediction, if the first has not stride 8.
    """

    def __init__(self, in_channels: tuple[int, int, int], in_index: tuple[int, int, int] = (0, 1, 2), **kwargs):
        if len(in_channels) != 3 or len(in_index) != 3:
            raise ValueError(f'FCN8sHead: in_channels and in_index must have three entries, but got {in_channels} and {in_index}')
        super().__init__(in_channels=in_channels, in_index=in_index, channels=in_channels[2], input_transform='multiple_select', **kwargs)
        self.score8, self.score16 = (nn.Conv2d(channels, self.out_channels, 1) for channels in in_channels[:2])
        self.upsample16, self.upsample32 = (nn.ConvTranspose2d(self.out_channels, self.out_channels, 4, 2, 1, bias=False) for _ in range(2))
        self._reset()

    def init_weights(self):
        """Initialise as FCN-32s, then apply ``init_cfg``."""
        self._reset()
        super().init_weights()

    def _reset(self):
        triangle = torch.tensor([0.25, 0.75, 0.75, 0.25])
        for upsample in (self.upsample16, self.upsample32):
            with torch.no_grad():
                upsample.weight.copy_(torch.eye(self.out_channels)[:, :, None, None] * triangle[:, None] * triangle)
        for score in (self.score8, self.score16):
            nn.init.zeros_(score.weight)
            nn.init.zeros_(score.bias)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Score the maps: ``(N, num_classes, H, W)`` of the size of the finest."""
        fine, middle, coarse = self._transform_inputs(inputs)
        scores = _add(self.score16(middle), self.upsample32(self.cls_seg(coarse)))
        return _add(self.score8(fine), self.upsample16(scores))

    def at_label_size(self, seg_logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Bring logits to the size of the labels."""
        check_stride(STRIDE_RULE, 8, seg_logits.shape[2:], size)
        return super().at_label_size(seg_logits, size)

    def predict_by_feat(self, seg_logits: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Interpolate to the image's size."""
        check_stride(STRIDE_RULE, 8, seg_logits.shape[2:], network_size(batch_img_metas))
        return super().predict_by_feat(seg_logits, batch_img_metas)


def _add(fine, coarse):
    """Add scores. For odd sizes, a backbone that rounds up gives one pixel too many here, and one that rounds down, such as VGG, one too few."""
    if is_exporting():  # one graph for every size: the border is there and the crop takes what it needs
        coarse = F.pad(coarse, (0, 1, 0, 1), mode='replicate')
        return fine + coarse[..., : fine.shape[2], : fine.shape[3]]
    surplus = [big - small for big, small in zip(coarse.shape[2:], fine.shape[2:], strict=True)]
    if not all(-1 <= pixels <= 1 for pixels in surplus):
        raise ValueError(
            f'FCN8sHead: inputs must halve in size from one to the next, but got {tuple(fine.shape[2:])} where twice the next is '
            f'{tuple(coarse.shape[2:])}'
        )
    if min(surplus) < 0:
        coarse = F.pad(coarse, (0, max(-surplus[1], 0), 0, max(-surplus[0], 0)), mode='replicate')
    return fine + coarse[..., : fine.shape[2], : fine.shape[3]]
