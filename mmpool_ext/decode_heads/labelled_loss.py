"""mmseg's losses on labelled pixels alone: several of them count ignored pixels, or fail where there is none to learn from."""

import math
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss, DiceLoss, FocalLoss, LovaszLoss, TverskyLoss
from mmseg.models.losses import accuracy as mmseg_accuracy
from mmseg.models.utils import resize
from mmseg.structures import OHEMPixelSampler
from torch import Tensor, nn

REFUSED = {
    'BoundaryLoss': 'it compares edge maps, not classes',
    'SiLogLoss': 'it compares depths, not classes',
    'OhemCrossEntropy': "it is NaN where no pixel is hard; use CrossEntropyLoss with sampler=dict(type='OHEMPixelSampler')",
    'HuasdorffDisstanceLoss': 'its distances run through ignored pixels, which would get a gradient',
    'HausdorffDistanceLoss': 'its distances run through ignored pixels, which would get a gradient',
}


def criteria_of(loss_decode: nn.Module) -> list[nn.Module]:
    """Losses of a head as a list."""
    return list(loss_decode) if isinstance(loss_decode, nn.ModuleList) else [loss_decode]


def check_losses(owner: str, loss_decode: nn.Module, out_channels: int, sampler) -> None:
    """Refuse losses that a segmentation head cannot use.

    Args:
        owner: Name of the head, for the message.
        loss_decode: Its losses.
        out_channels: Maps of logits; 1 is a binary task.
        sampler: Its pixel sampler, or None.

    Raises:
        ValueError: If a loss is of no use for class maps, needs more or fewer maps of logits, would not see the sampler's weights, or is not one by
            which the sampler can find hard pixels.
    """
    for criterion in criteria_of(loss_decode):
        name = type(criterion).__name__
        problem = REFUSED.get(name)
        if isinstance(criterion, CrossEntropyLoss) and criterion.use_mask:
            problem = 'use_mask is for masks of regions'
        if isinstance(sampler, OHEMPixelSampler):
            sigmoid = isinstance(criterion, CrossEntropyLoss) and criterion.use_sigmoid
            if sampler.thresh is None and (isinstance(criterion, FocalLoss) or (sigmoid and out_channels > 1)):
                problem = 'it has a value for each channel, and a sampler without thresh needs one for each pixel'
            elif sampler.thresh is not None and out_channels == 1:
                problem = "the sampler's thresh is of a softmax, which needs at least two output channels"
        softmax = isinstance(criterion, TverskyLoss) or (isinstance(criterion, LovaszLoss) and not _is_binary_lovasz(criterion))
        softmax = softmax or (isinstance(criterion, CrossEntropyLoss) and not criterion.use_sigmoid)
        if softmax and out_channels == 1:
            problem = 'its softmax needs at least two output channels; use a loss with a sigmoid'
        if _is_binary_lovasz(criterion) and out_channels > 1:
            problem = f"loss_type='binary' needs one output channel, not {out_channels}"
        if sampler is not None and isinstance(criterion, (DiceLoss, TverskyLoss, LovaszLoss)):
            problem = 'it has no weight for each pixel, so a sampler would do nothing'
        if problem:
            raise ValueError(f'{owner}: loss_decode must be a loss of labelled pixels, but got {name}: {problem}')


def labelled_loss(criterion: nn.Module, logits: Tensor, target: Tensor, ignore_index: int, weight: Tensor | None = None) -> Tensor:
    """Apply one of mmseg's losses to the pixels that have a label.

    Ignored pixels get no gradient, and the loss is zero where no pixel has a label. A loss that is an average is one over labelled pixels, or
    over images with a labelled pixel where it is made for each image (Dice, Tversky, Lovasz with ``per_image``); only a cross entropy with
    ``avg_non_ignore=False`` divides by all pixels, as it says. A loss that is not mmseg's is called as mmseg's heads call it.

    Args:
        criterion: The loss.
        logits: ``(N, C, H, W)``.
        target: Labels ``(N, H, W)``.
        ignore_index: Label of the pixels to leave out.
        weight: Factor of each pixel ``(N, H, W)``.

    Returns:
        The loss: a scalar, or with ``reduction='none'`` a value for each pixel (``(N, H, W)`` or ``(N, C, H, W)``) or image ``(N,)``.
    """
    valid = target != ignore_index
    if not valid.any():
        return _nothing(logits)
    if isinstance(criterion, (DiceLoss, TverskyLoss)) or (isinstance(criterion, LovaszLoss) and criterion.per_image):
        return _of_images(criterion, logits, target, valid)
    weighted = isinstance(criterion, CrossEntropyLoss) and criterion.class_weight is not None
    if not weighted and not isinstance(criterion, (FocalLoss, LovaszLoss)):
        return criterion(logits, target, weight=weight, ignore_index=ignore_index)
    picked, label = logits.movedim(1, -1)[valid].float(), target[valid]  # (M, C), (M,)
    factors = None if weight is None else weight[valid]
    if isinstance(criterion, LovaszLoss):
        return criterion(_as_map(picked), label[None, :, None], ignore_index=None)
    if isinstance(criterion, FocalLoss):
        if not logits.is_cuda:  # mmseg's form for the CPU takes maps of zeros and ones alone
            label = _one_hot(label, picked.shape[1])
        value = criterion(picked, label, weight=factors, ignore_index=-1)
    elif criterion.use_sigmoid:
        value = criterion(picked, label, weight=factors, ignore_index=ignore_index)
    else:
        factors = None if factors is None else factors[None, :, None]
        # onedl's mmseg fails at the sum of the weights that a mean is divided by, where avg_non_ignore is set
        total = picked.new_tensor(criterion.class_weight)[label].sum() if criterion.reduction == 'mean' else None
        value = criterion(_as_map(picked), label[None, :, None], weight=factors, avg_factor=total, ignore_index=ignore_index)
    if criterion.reduction != 'none':
        return value
    value = value.reshape(len(label), -1)
    whole = value.new_zeros(*target.shape, value.shape[1])
    whole[valid] = value
    return whole.squeeze(-1) if value.shape[1] == 1 else whole.movedim(-1, 1)


def _nothing(logits):
    """Zero, with a gradient of zero, which distributed training asks for."""
    return logits.flatten()[:0].float().sum()


def _as_map(picked):
    """``(M, C)`` as a map ``(1, C, M, 1)``."""
    return picked.t()[None, :, :, None]


def _one_hot(label, channels):
    """Targets ``(M, channels)``; one channel is that of class 1."""
    return label[:, None] if channels == 1 else F.one_hot(label, channels)


def _is_binary_lovasz(criterion):
    return isinstance(criterion, LovaszLoss) and criterion.cls_criterion.__name__ == 'lovasz_hinge'


def _of_images(criterion, logits, target, valid):
    """A loss that is made for each image: of the labelled pixels of each, put together as its reduction says."""
    values = []
    for maps, label, mask in zip(logits, target, valid, strict=True):
        if not mask.any():
            values.append(_nothing(maps))
            continue
        picked, label = _as_map(maps[:, mask].t().float()), label[mask][None, :, None]
        if isinstance(criterion, DiceLoss):
            if picked.shape[1] == 1:  # mmseg would take class 0 for the foreground
                label = label[:, None]
            values.append(criterion(picked, label, reduction_override='none').squeeze(0))
        elif isinstance(criterion, LovaszLoss):
            values.append(criterion(picked, label, ignore_index=None, reduction_override='none').squeeze(0))
        else:
            values.append(criterion(picked, label))
    values = torch.stack(values)
    reduction = getattr(criterion, 'reduction', 'mean')
    if reduction == 'none':
        return values
    return values.sum() if reduction == 'sum' else values.sum() / valid.flatten(1).any(1).sum()


def accuracy(logits: Tensor, target: Tensor, ignore_index: int, threshold: float | None = None) -> Tensor:
    """Share of labelled pixels whose class is right, in percent; 0 where no pixel has a label.

    Args:
        logits: ``(N, C, H, W)``; one channel is that of class 1.
        target: Labels ``(N, H, W)``.
        ignore_index: Label of the pixels to leave out.
        threshold: Probability from which on a single channel means class 1.
    """
    if logits.shape[1] == 1:
        threshold = 0.5 if threshold is None else threshold
        logits = torch.cat([torch.full_like(logits, math.log(threshold / (1 - threshold))), logits], 1)
    return mmseg_accuracy(logits, target, ignore_index=ignore_index)


@contextmanager
def explain_batch_of_one(owner: str):
    """Say what to do where a norm in training mode sees a single value of each channel."""
    try:
        yield
    except ValueError as error:
        if 'more than 1 value per channel' not in str(error):
            raise
        raise ValueError(
            f'{owner}: a norm in training mode must see more than one value of each channel, but got one image and a map of 1 x 1 ({error}); use '
            "two images or more on each GPU, with train_dataloader=dict(drop_last=True) if the last batch is smaller, or norm_cfg=dict(type='GN', "
            'num_groups=32)'
        ) from error


class LabelledLossHead(BaseDecodeHead):
    """mmseg's head, with losses and accuracy of labelled pixels alone.

    Args:
        args: Those of mmseg's ``BaseDecodeHead``, as ``kwargs``.

    Raises:
        ValueError: If ``loss_decode`` cannot be used, see :func:`check_losses`; in training, if a label is neither a class nor ``ignore_index``, or
            a norm sees a single value of each channel.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        check_losses(type(self).__name__, self.loss_decode, self.out_channels, self.sampler)

    def loss(self, inputs, batch_data_samples, train_cfg) -> dict:
        """Losses of a batch, see mmseg's ``BaseDecodeHead``."""
        with explain_batch_of_one(type(self).__name__):
            return super().loss(inputs, batch_data_samples, train_cfg)

    def _stack_batch_gt(self, batch_data_samples):
        label = super()._stack_batch_gt(batch_data_samples)
        last = max(self.num_classes, 2) - 1  # one class with one output channel is a binary task
        wrong = label[(label != self.ignore_index) & ((label < 0) | (label > last))]
        if len(wrong):  # several losses take such a label for no class or for the last one
            raise ValueError(
                f'{type(self).__name__}: labels must be 0 to {last} or ignore_index {self.ignore_index}, but got {wrong.unique()[:5].tolist()}; if '
                'it is the label of padding, set seg_pad_val to ignore_index'
            )
        return label

    def at_label_size(self, seg_logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Bring logits to the size of the labels."""
        return resize(seg_logits, size, mode='bilinear', align_corners=self.align_corners)

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples) -> dict:
        """Losses of the labelled pixels (:func:`labelled_loss`) and the accuracy."""
        label = self._stack_batch_gt(batch_data_samples)
        seg_logits = self.at_label_size(seg_logits, label.shape[2:])
        weight = None if self.sampler is None else self.sampler.sample(seg_logits, label)
        label = label.squeeze(1)
        losses: dict[str, Tensor] = {}
        for criterion in criteria_of(self.loss_decode):
            value = labelled_loss(criterion, seg_logits, label, self.ignore_index, weight)
            name = str(criterion.loss_name)
            losses[name] = losses.get(name, 0) + value
        losses['acc_seg'] = accuracy(seg_logits, label, self.ignore_index, self.threshold)
        return losses
