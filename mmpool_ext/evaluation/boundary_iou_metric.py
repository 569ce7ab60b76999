"""mIoU near semantic boundaries."""

import numpy as np
import torch
from mmengine.logging import MMLogger, print_log
from mmseg.evaluation.metrics import IoUMetric
from scipy.ndimage import distance_transform_edt


def near_boundary(label, distance, ignore_index=255, fill_void=False):
    """Mark the pixels within ``distance`` pixels (Euclidean) of a semantic boundary.

    A pixel is on a boundary if one of its four neighbours has another label; void pixels neither are nor make a boundary.

    Args:
        label: Labels ``(H, W)``, a numpy array.
        distance: Pixels, >= 0; 0 marks the boundary alone.
        ignore_index: The label of void pixels.
        fill_void: Let void pixels take the nearest label first, for data sets that separate objects by a ring of void, such as VOC.

    Returns:
        Boolean array ``(H, W)``.
    """
    void = label == ignore_index
    if fill_void and not void.all():
        label = label[tuple(distance_transform_edt(void, return_distances=False, return_indices=True))]
    boundary = np.zeros(label.shape, bool)
    for one, other in (((slice(1, None), slice(None)), (slice(-1), slice(None))), ((slice(None), slice(1, None)), (slice(None), slice(-1)))):
        differ = (label[one] != label[other]) & (label[one] != ignore_index) & (label[other] != ignore_index)
        boundary[one] |= differ
        boundary[other] |= differ
    if not boundary.any():
        return boundary
    return distance_transform_edt(~boundary) <= distance


class BoundaryIoUMetric(IoUMetric):
    """mmseg's IoU metrics over all pixels and, under the same names with ``boundary_`` in front, over those near a semantic boundary.

    Table 2b of "Specialize and Fuse". Not the Boundary IoU of Cheng et al., which compares boundaries of masks. See :func:`near_boundary`.

    Args:
        distance: Pixels from the boundary that count, >= 0.
        fill_void: Look for boundaries across void pixels too.
        kwargs: Those of mmseg's ``IoUMetric``.
    """

    def __init__(self, distance: float = 8, fill_void: bool = False, **kwargs):
        super().__init__(**kwargs)
        if distance < 0:
            raise ValueError(f'BoundaryIoUMetric: distance must be >= 0, but got {distance}')
        self.distance, self.fill_void = distance, fill_void

    def process(self, data_batch, data_samples):
        """Count one batch."""
        before = len(self.results)
        super().process(data_batch, data_samples)
        for index, everywhere in enumerate(self.results[before:], before):
            sample = data_samples[index - before]
            predicted = sample['pred_sem_seg']['data'].squeeze()
            label = sample['gt_sem_seg']['data'].squeeze()
            near = near_boundary(label.cpu().numpy(), self.distance, self.ignore_index, self.fill_void)
            label = label.masked_fill(~torch.from_numpy(near).to(label.device), self.ignore_index).to(predicted)
            self.results[index] = everywhere, self.intersect_and_union(predicted, label, len(self.dataset_meta['classes']), self.ignore_index)

    def compute_metrics(self, results):
        """Turn the counts of all images into percentages."""
        if self.format_only:
            return super().compute_metrics(results)
        everywhere, near = zip(*results, strict=True)
        metrics = super().compute_metrics(everywhere)
        print_log(f'Within {self.distance} pixels of a semantic boundary:', MMLogger.get_current_instance())
        return {**metrics, **{f'boundary_{name}': value for name, value in super().compute_metrics(near).items()}}
