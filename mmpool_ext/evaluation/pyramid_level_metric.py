"""Evaluate each level of a pyramid: Table 2c and Figure 3 of "Specialize and Fuse"."""

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log
from prettytable import PrettyTable


def count_areas(predicted, label, group, num_groups, num_classes):
    """Count intersection, prediction and label pixels ``(3, num_groups, num_classes)`` of flat maps in each group of pixels."""
    size = num_groups * num_classes
    by_label, by_prediction = group * num_classes + label, group * num_classes + predicted
    areas = [torch.bincount(keys, minlength=size) for keys in (by_label[predicted == label], by_prediction, by_label)]
    return torch.stack(areas).view(3, num_groups, num_classes).cpu()


def class_iou(areas):
    """IoU in percent from areas ``(3, ..., num_classes)``; NaN where a class neither occurs nor is predicted."""
    intersect, predicted, label = areas.double()
    return 100 * intersect / (predicted + label - intersect)


class PyramidLevelMetric(BaseMetric):
    """Score every level of the pyramid on every group of pixels, a group being the pixels that the fuser gives to one level.

    The model must be a ``PyramidEncoderDecoder``. Levels are numbered as in the paper, 1 the coarsest. Percentages returned: ``mIoU`` of the
    fused map; ``mIoU_level{p}`` of level p used alone; ``mIoU_level{p}_on{l}`` of level p on the pixels that the fuser gives to level l (Table
    2c, rows p, columns l); ``share_level{l}`` of the labelled pixels; all with the prefix ``pyramid/``, so that they do not clash with the names
    of mmseg's metrics. Logged as well: each class's IoU of each level minus the fused one (Figure 3). NaN stands for a group without pixels.

    Args:
        ignore_index: The label of void pixels.
        per_class: Whether to return each class's IoU too: ``IoU/{class}`` of the fused map, ``IoU_level{p}/{class}`` of level p used alone.
        kwargs: Those of mmengine's ``BaseMetric``.
    """

    default_prefix = 'pyramid'

    def __init__(self, ignore_index: int = 255, per_class: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.ignore_index, self.per_class = ignore_index, per_class

    def process(self, data_batch, data_samples):
        """Count one batch."""
        num_classes = len(self.dataset_meta['classes'])
        for sample in data_samples:
            if 'pyramid_level' not in sample:
                raise ValueError(
                    f"PyramidLevelMetric: data samples must have a pyramid_level, but got {sorted(sample)}; set model.type='PyramidEncoderDecoder'"
                )
            label = sample['gt_sem_seg']['data'].squeeze(0)
            levels, group, fused = (sample[name]['data'].to(label).long() for name in ('pyramid_sem_seg', 'pyramid_level', 'pred_sem_seg'))
            valid = label != self.ignore_index
            wrong = label[valid & ((label < 0) | (label >= num_classes))]
            if len(wrong):  # they would count as classes of the next level
                raise ValueError(
                    f'PyramidLevelMetric: labels must be 0 to {num_classes - 1} or ignore_index {self.ignore_index}, but got '
                    f'{wrong.unique()[:5].tolist()}'
                )
            label, group, fused = label[valid].long(), group.squeeze(0)[valid], fused.squeeze(0)[valid]
            areas = [count_areas(level[valid], label, group, len(levels), num_classes) for level in levels]
            self.results.append((torch.stack(areas, 1), count_areas(fused, label, torch.zeros_like(group), 1, num_classes)[:, 0]))

    def compute_metrics(self, results):
        """Turn the counts of all images into percentages and log the tables."""
        areas = sum(one for one, _ in results)  # (3, predicting level, fuser's level, class)
        fused, alone, grouped = class_iou(sum(one for _, one in results)), class_iou(areas.sum(2)), class_iou(areas)
        share = 100 * areas[2, 0].sum(1).double() / areas[2, 0].sum()
        numbers = range(1, len(share) + 1)
        metrics = dict(mIoU=fused.nanmean().item())
        groups = PrettyTable(['Predicted by', *(f'on pixels of {number}' for number in numbers), 'alone'])
        classes = PrettyTable(['Class', *(f'level {number} minus fused' for number in numbers), 'fused'])
        for row, by in enumerate(numbers):
            metrics[f'share_level{by}'] = share[row].item()
            metrics[f'mIoU_level{by}'] = alone[row].nanmean().item()
            for column, on in enumerate(numbers):
                metrics[f'mIoU_level{by}_on{on}'] = grouped[row, column].nanmean().item()
            cells = [metrics[f'mIoU_level{by}_on{on}'] for on in numbers]
            groups.add_row([f'level {by}', *(f'{value:.2f}' for value in [*cells, metrics[f'mIoU_level{by}']])])
        for name, of_levels, value in zip(self.dataset_meta['classes'], alone.T.tolist(), fused.tolist(), strict=True):
            classes.add_row([name, *(f'{of_level - value:+.2f}' for of_level in of_levels), f'{value:.2f}'])
            if self.per_class:
                metrics |= {f'IoU/{name}': value} | {f'IoU_level{by}/{name}': of_level for by, of_level in zip(numbers, of_levels, strict=True)}
        print_log(f'Level against level, mIoU (fused: {metrics["mIoU"]:.2f}):\n{groups}\n{classes}', MMLogger.get_current_instance())
        return {name: round(value, 2) for name, value in metrics.items()}
