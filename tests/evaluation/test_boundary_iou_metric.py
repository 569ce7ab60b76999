import numpy as np
import pytest
import torch

pytest.importorskip('mmseg')
from mmengine.registry import METRICS
from mmseg.evaluation.metrics import IoUMetric

import mmpool_ext  # noqa: F401
from mmpool_ext.evaluation.boundary_iou_metric import near_boundary

VOID = 255


def near_boundary_by_loops(label, distance):
    """Every pixel looks at every boundary pixel."""
    height, width = label.shape
    boundary = [
        (row, column)
        for row, column in np.ndindex(label.shape)
        for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
        if 0 <= r < height and 0 <= c < width and VOID not in (label[row, column], label[r, c]) and label[row, column] != label[r, c]
    ]
    near = np.zeros(label.shape, bool)
    for row, column in np.ndindex(label.shape):
        near[row, column] = any((row - r) ** 2 + (column - c) ** 2 <= distance**2 for r, c in boundary)
    return near


@pytest.mark.parametrize('distance', [0, 1, 2.5, 8])
def test_near_boundary_equals_the_loops(distance):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, (3, 3)).repeat(11, 0).repeat(8, 1)
    label[rng.random(label.shape) < 0.02] = VOID
    np.testing.assert_array_equal(near_boundary(label, distance), near_boundary_by_loops(label, distance))


def test_void_makes_no_boundary():
    label = np.full((8, 8), 1)
    label[:, 4:] = VOID
    assert not near_boundary(label, 8).any()
    assert not near_boundary(np.full((8, 8), 1), 8).any()


def test_boundary_across_a_ring_of_void():
    label = np.zeros((4, 9), int)
    label[:, 5:] = 1
    label[:, 4] = VOID
    assert not near_boundary(label, 1).any()
    assert set(np.flatnonzero(near_boundary(label, 1, fill_void=True)[0])) in ({2, 3, 4, 5}, {3, 4, 5, 6})
    assert not near_boundary(np.full((4, 4), VOID), 1, fill_void=True).any()


def score(metric, *pairs):
    metric.dataset_meta = dict(classes=('a', 'b', 'c'))
    for predicted, label in pairs:
        metric.process({}, [dict(pred_sem_seg=dict(data=predicted[None]), gt_sem_seg=dict(data=label[None]))])
    return metric.evaluate(len(pairs))


def test_scores_everywhere_and_near_the_boundary():
    label = torch.zeros(32, 32, dtype=torch.long)
    label[:, 16:] = 1
    label[0] = VOID
    wrong_far_away, wrong_at_the_boundary = label.clone(), label.clone()
    wrong_far_away[:, :4] = 1
    wrong_at_the_boundary[:, 16:20] = 0
    pairs = [(wrong_far_away, label), (wrong_at_the_boundary, label)]
    metrics = score(METRICS.build(dict(type='BoundaryIoUMetric', distance=4)), *pairs)
    plain = score(IoUMetric(), *pairs)
    assert {name: metrics[name] for name in plain} == plain
    # within 4 pixels: columns 11 to 20 of 31 rows; the first image is right there, the second misses four of five columns of class 1
    left, right = 100 * 10 / 14, 100 * 6 / 10
    assert metrics['boundary_mIoU'] == pytest.approx((left + right) / 2, abs=0.01)
    assert metrics['boundary_aAcc'] == pytest.approx(100 * 16 / 20, abs=0.01)


def test_format_only_writes_no_scores(tmp_path):
    metric = METRICS.build(dict(type='BoundaryIoUMetric', output_dir=str(tmp_path), format_only=True))
    metric.dataset_meta = dict(classes=('a', 'b'))
    metric.process({}, [dict(pred_sem_seg=dict(data=torch.zeros(1, 4, 4).long()), img_path='one.jpg')])
    assert (tmp_path / 'one.png').exists()
    assert metric.compute_metrics(metric.results) == {}


def test_negative_distance():
    with pytest.raises(ValueError, match='BoundaryIoUMetric: distance must be >= 0, but got -1'):
        METRICS.build(dict(type='BoundaryIoUMetric', distance=-1))
