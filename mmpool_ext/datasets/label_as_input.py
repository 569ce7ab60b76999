"""The label auto-encoder's input: ground truth instead of the image (Section 4.1.1 of DUpsampling's paper)."""

import torch
from mmseg.models.data_preprocessor import SegDataPreProcessor


class LabelAsInput(SegDataPreProcessor):
    """Replace the images by the one-hot ground truth ``(N, num_classes, H, W)``, in training and in testing; void pixels are all zero.

    Args:
        num_classes: Number of classes.
        ignore_index: Label of void pixels.
        **kwargs: As in mmseg's ``SegDataPreProcessor``: ``size`` pads images and labels in training.

    Raises:
        ValueError: In ``forward``, if a sample has no label, or one of another size than its image.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255, **kwargs):
        super().__init__(**kwargs)
        self.num_classes, self.ignore_index = num_classes, ignore_index

    def forward(self, data: dict, training: bool = False) -> dict:
        """Collate as mmseg does, then swap the inputs."""
        data = super().forward(data, training)
        for sample in data['data_samples']:
            size = tuple(sample.gt_sem_seg.shape) if 'gt_sem_seg' in sample else 'no label'
            if size != tuple(data['inputs'].shape[2:]):
                raise ValueError(
                    f'LabelAsInput: each label must have the size of its image {tuple(data["inputs"].shape[2:])}, but got {size}; load'
                    ' annotations in the test pipeline too, and resize nothing there'
                )
        label = torch.stack([sample.gt_sem_seg.data for sample in data['data_samples']])
        classes = torch.arange(self.num_classes, device=label.device).view(-1, 1, 1)
        data['inputs'] = ((label == classes) & (label != self.ignore_index)).float()
        return data
