"""The fit of DUpsampling against dense PCA."""

import numpy as np
import pytest
import reference
import torch

from mmpool_ext.layers.dupsampling_fit import LabelWindows, _leading_eigenvectors, compress, decompress, fit_dupsampling, mean_iou, one_hot_groups


def blobs(count, height, width, num_classes, seed=0, void=True):
    """Label maps of overlapping discs, some outlined with void."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    maps = []
    for _ in range(count):
        label = np.zeros((height, width), dtype=np.uint8)
        for _ in range(4):
            distance = np.hypot(rows - random.uniform(0, height), columns - random.uniform(0, width))
            radius = random.uniform(2, min(height, width) / 2)
            label[distance < radius] = random.integers(num_classes)
            if void:
                label[(distance >= radius) & (distance < radius + 1)] = 255
        maps.append(label)
    return maps


def angle(a, b):
    """Largest principal angle of two column spaces, by its sine: accurate where the cosine is not."""
    a, b = np.linalg.qr(a)[0], np.linalg.qr(b)[0]
    return np.linalg.norm(b - a @ (a.T @ b), ord=2)


@pytest.mark.parametrize('void', [False, True])
@pytest.mark.parametrize('method', ['exact', 'randomized'])
def test_equals_dense_pca(method, void):
    labels = blobs(24, 21, 34, num_classes=4, void=void)
    channels = 12
    mean, values, vectors = reference.dense_pca(reference.label_window_vectors(labels, 4, 4), channels + 1)
    assert values[channels - 1] > 1.01 * values[channels]  # the subspace is well defined
    fit = fit_dupsampling(labels, 4, 4, channels, method=method)
    assert fit['windows'] == 24 * 6 * 9
    np.testing.assert_allclose(fit['bias'], mean, atol=1e-6)
    tolerance = 1e-4 if method == 'exact' else 0.05
    assert angle(fit['weight'].double().numpy(), vectors[:, :channels]) < tolerance
    np.testing.assert_allclose(fit['explained_variance_ratio'].sum(), values[:channels].sum() / (mean - mean**2).sum(), rtol=1e-4)
    torch.testing.assert_close(fit['weight'].T @ fit['weight'], torch.eye(channels), atol=1e-5, rtol=0)


@pytest.mark.parametrize('rank', [None, 20])
def test_leading_eigenvectors_equal_the_dense_solver(rank):
    torch.manual_seed(0)
    factor = torch.randn(400, rank or 400, dtype=torch.float64)
    matrix = factor @ factor.T
    values, vectors = _leading_eigenvectors(matrix, 10, seed=0)
    dense_values, dense_vectors = torch.linalg.eigh(matrix)
    torch.testing.assert_close(values, dense_values.flip(0)[:10])
    assert angle(vectors.numpy(), dense_vectors[:, -10:].numpy()) < 1e-6
    zero, _ = _leading_eigenvectors(torch.zeros(400, 400, dtype=torch.float64), 10, seed=0)
    assert not zero.any()


def test_auto_takes_the_exact_fit_for_voc_and_the_randomized_one_for_ratio_32(monkeypatch):
    import mmpool_ext.layers.dupsampling_fit as module

    labels = blobs(2, 33, 40, num_classes=4)
    assert fit_dupsampling(labels, 4, 4, 4)['method'] == 'exact'
    monkeypatch.setattr(module, 'EXACT_LIMIT', 63)
    assert fit_dupsampling(labels, 4, 4, 4)['method'] == 'randomized'
    monkeypatch.undo()
    assert 21 * 16**2 <= module.EXACT_LIMIT < 21 * 32**2


def test_full_rank_reproduces_labels_of_odd_and_non_square_maps():
    labels = blobs(6, 13, 22, num_classes=3, void=False)
    fit = fit_dupsampling(labels, 3, 4, channels=48)
    vectors = torch.from_numpy(reference.label_window_vectors(labels, 3, 4)).float()
    torch.testing.assert_close(decompress(compress(vectors, fit), fit), vectors, atol=1e-4, rtol=0)
    assert fit['miou'] == 100


def test_miou_of_the_fit_is_that_of_the_restored_labels():
    labels = blobs(8, 24, 32, num_classes=4)
    fit = fit_dupsampling(labels, 4, 8, channels=3)
    vectors = torch.from_numpy(reference.label_window_vectors(labels, 4, 8)).float()
    restored = decompress(compress(vectors, fit), fit).view(-1, 4, 64).argmax(dim=1)
    truth = vectors.view(-1, 4, 64)
    valid, truth = truth.sum(dim=1) > 0, truth.argmax(dim=1)
    ious = [float((valid & (restored == c) & (truth == c)).sum() / (valid & ((restored == c) | (truth == c))).sum()) for c in range(4)]
    assert fit['miou'] == pytest.approx(100 * np.mean(ious), abs=1e-3)
    assert 30 < fit['miou'] < 99.9


def test_miou_of_the_fit_bounds_no_decoder():
    """Features that are optimised under the same W restore more labels than those of the projection."""
    labels = blobs(8, 24, 32, num_classes=4)
    fit = fit_dupsampling(labels, 4, 8, channels=3)
    vectors = torch.from_numpy(reference.label_window_vectors(labels, 4, 8)).float()
    truth = vectors.view(-1, 4, 64)
    valid, truth = truth.sum(dim=1) > 0, truth.argmax(dim=1)
    features = compress(vectors, fit).clone().requires_grad_()
    optimizer = torch.optim.Adam([features], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        logits = decompress(features, fit).view(-1, 4, 64)
        torch.nn.functional.cross_entropy(4 * logits, truth.masked_fill(~valid, 255), ignore_index=255).backward()
        optimizer.step()
    restored = decompress(features.detach(), fit).view(-1, 4, 64).argmax(dim=1)
    confusion = torch.bincount(4 * truth[valid] + restored[valid], minlength=16).view(4, 4)
    print(f'{fit["miou"]:.1f} by the projection, {mean_iou(confusion):.1f} by other features')
    assert mean_iou(confusion) > fit['miou'] + 3


def test_sampling_keeps_every_mixed_window_alike():
    labels = list(np.random.default_rng(0).integers(0, 3, (40, 32, 32)))  # noise: no two windows are the same
    windows, full = LabelWindows(3, 4, max_windows=150), LabelWindows(3, 4)
    for label in labels:
        for target in (windows, full):
            target.add(label)
            target.flush()
    assert windows.mixed == full.mixed == windows.total == 40 * 64
    assert len(windows.kept) == 150
    position = {row.numpy().tobytes(): i for i, row in enumerate(full.kept)}
    ranks = np.array([position[row.numpy().tobytes()] for row in windows.kept]) / len(full.kept)
    assert len(set(ranks)) == 150
    assert 0.4 < ranks.mean() < 0.6  # neither the first nor the last ones: one standard error is 0.024


def test_a_sample_estimates_what_all_windows_give():
    labels = blobs(40, 32, 32, num_classes=3)
    sampled = fit_dupsampling(labels, 3, 4, 6, method='randomized', max_windows=150)
    exact = fit_dupsampling(labels, 3, 4, 6)
    assert sampled['mixed_windows'] == exact['mixed_windows'] > 300
    assert float(sampled['explained_variance_ratio'].sum()) == pytest.approx(float(exact['explained_variance_ratio'].sum()), abs=0.05)
    assert sampled['miou'] == pytest.approx(exact['miou'], abs=3)


def test_groups_are_exact_and_bounded():
    windows = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (50, 16)).astype(np.uint8))
    windows[:10, :] = 3  # void alone: no column
    total = torch.zeros(3 * 16)
    for classes, onehot in one_hot_groups(windows, 3, max_bytes=4 * 16 * 3 * 4):
        assert len(onehot) * 16 * len(classes) * 4 <= 4 * 16 * 3 * 4
        total.view(3, 16)[classes] += onehot.sum(0).view(-1, 16)
    expected = torch.stack([(windows == c).sum(0) for c in range(3)]).float()
    torch.testing.assert_close(total.view(3, 16), expected)


@pytest.mark.parametrize(
    ('void', 'bias'),
    [('zero', [[1, 0], [0, 0]]), ('class0', [[1, 1], [1, 1]]), ('nearest', [[1, 1], [0, 0]])],
)
def test_void_rules_by_hand(void, bias):
    """One 2x2 window per map: class 0 above void and class 1."""
    label = np.array([[0, 255], [255, 1]], dtype=np.uint8) if void == 'zero' else np.array([[0, 255, 0, 0], [255, 255, 1, 1]], dtype=np.uint8)
    fit = fit_dupsampling([label[:, :2]] if void != 'nearest' else [np.array([[0, 255], [1, 255]], dtype=np.uint8)], 2, 2, 1, void=void)
    np.testing.assert_allclose(fit['bias'].view(2, 2, 2)[0], bias, atol=1e-6)


def test_void_drop_leaves_out_windows_with_void_or_padding():
    label = np.zeros((4, 5), dtype=np.uint8)
    label[0, 0] = 255
    label[2, 2] = 1
    fit = fit_dupsampling([label], 2, 2, 1, void='drop')
    assert fit['windows'] == 3


@pytest.mark.parametrize('method', ['sgd', 'autoencoder'])
def test_gradient_methods_approach_pca(method):
    labels = blobs(16, 32, 32, num_classes=3, void=False)
    pca = fit_dupsampling(labels, 3, 4, 8)
    fit = fit_dupsampling(labels, 3, 4, 8, method=method, steps=400)
    vectors = torch.from_numpy(reference.label_window_vectors(labels, 3, 4)).float()
    error = {id(f): (decompress(compress(vectors, f), f) - vectors).square().sum(1).mean() for f in (pca, fit)}
    variance = (vectors - vectors.mean(0)).square().sum(1).mean()
    assert error[id(pca)] < 0.1 * variance
    assert error[id(fit)] < 0.2 * variance
    assert fit['miou'] > 85
    assert ('hidden_weight' in fit) == (method == 'autoencoder')


def test_is_repeatable():
    labels = blobs(4, 16, 24, num_classes=3)
    for method in ('exact', 'randomized', 'sgd'):
        a, b = (fit_dupsampling(labels, 3, 4, 4, method=method, steps=5) for _ in range(2))
        assert all(torch.equal(a[name], b[name]) for name in ('weight', 'bias', 'projection'))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(num_classes=1), 'num_classes must be 2 to 255, but got 1'),
        (dict(scale_factor=0), 'scale_factor must be at least 1, but got 0'),
        (dict(channels=49), r'channels must be 1 to num_classes \* scale_factor \*\* 2 = 48, but got 49'),
        (dict(method='svd'), "method must be one of .* but got 'svd'"),
        (dict(void='skip'), "void must be one of .* but got 'skip'"),
        (dict(max_windows=0), 'max_windows must be at least 1, but got 0'),
        (dict(labels=[np.full((4, 4), 3)]), r'labels must be in \[0, 3\) or 255, but got \[3\]'),
        (dict(labels=[np.full((4, 4), -1)]), r'labels must be in \[0, 3\) or 255, but got \[-1\]'),
        (dict(labels=[np.zeros((3, 8), int)]), r'window edge 4, but got the shape \(3, 8\)'),
        (dict(labels=[np.zeros((8, 8, 3), int)]), r'each label map must be \(H, W\).*\(8, 8, 3\)'),
        (dict(labels=[]), 'labels must hold at least one labelled window, but got 0 windows'),
        (dict(labels=[np.full((8, 8), 255)]), 'at least one labelled window, but got 4 windows, all void'),
    ],
)
def test_bad_input(change, message):
    arguments = dict(labels=[np.zeros((8, 8), int)], num_classes=3, scale_factor=4, channels=2) | change
    with pytest.raises(ValueError, match=f'fit_dupsampling: .*{message}'):
        fit_dupsampling(**arguments)
