"""Fit DUpsampling's W to label maps: PCA in closed form, or gradient descent (Section 3.1 of the paper).

It is in this sub-package because it shares a file format with the layer: the keys of the fitted dictionary are the layer's own state. Labels are
one-hot and nearly piecewise constant, and both facts are used: a window of one class is counted, not stored, and windows that hold the same set
of classes are multiplied in those classes' columns alone, so that the covariance of 5376 dimensions costs what one of 512 does.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

VOID_RULES = ('zero', 'class0', 'nearest', 'drop')
METHODS = ('auto', 'exact', 'randomized', 'sgd', 'autoencoder')
EXACT_LIMIT = 8192  # dimensions up to which 'auto' takes the dense covariance: 0.5 GiB in float64
_CHUNK_BYTES = 64 << 20


class LabelWindows:
    """The windows of many label maps, in bounded memory.

    Windows of a single value are counted; of the others (``mixed`` in number) a uniform sample of at most ``max_windows`` is kept; with
    ``covariance=True`` each of them is summed into the second moment before it is discarded.

    Args:
        num_classes: Number of classes C, 2 to 255. A window's void pixels are stored as the value C.
        scale_factor: Window edge r in pixels.
        void: What a pixel of ``ignore_index`` or of the padding at the right and bottom becomes: ``'zero'`` no class at all (an all-zero
            one-hot vector), ``'class0'`` class 0, ``'nearest'`` the class of the nearest labelled pixel of the same map; ``'drop'`` leaves out
            every window that has such a pixel. The paper says nothing. Dropping loses the windows at object borders where the data set
            outlines them with void, as VOC does.
        ignore_index: Label of void pixels.
        covariance: Whether to sum the second moment ``(C r^2, C r^2)`` in float64.
        max_windows: Most mixed windows to keep; they take ``max_windows * scale_factor ** 2`` bytes.
        seed: Seed of the sample.
    """

    def __init__(self, num_classes, scale_factor, void='zero', ignore_index=255, covariance=False, max_windows=1_000_000, seed=0):
        self.num_classes, self.scale_factor, self.void, self.ignore_index = num_classes, scale_factor, void, ignore_index
        self.area = scale_factor**2
        self.single = torch.zeros(num_classes + 1, dtype=torch.int64)
        self.mixed = 0
        # One contiguous block per pair of classes, the upper ones only: adding into strided blocks of one matrix takes ten times as long.
        self.moment = torch.zeros(num_classes, num_classes, self.area, self.area, dtype=torch.float64) if covariance else None
        self._sample = np.empty((max_windows, self.area), dtype=np.uint8)  # the operating system allocates its pages as they are written
        self._random = np.random.default_rng(seed)
        self._pending, self._pending_bytes = [], 0

    @property
    def total(self) -> int:
        """Number of windows seen."""
        return int(self.single.sum()) + self.mixed

    @property
    def kept(self) -> Tensor:
        """The sample of mixed windows ``(M, r^2)``, uint8."""
        return torch.from_numpy(self._sample[: min(self.mixed, len(self._sample))])

    def add(self, label):
        """Count the windows of one label map ``(H, W)`` of integers: an array or a tensor."""
        windows = self._split(np.asarray(label))
        low, high = windows.min(axis=1), windows.max(axis=1)
        same = low == high
        self.single += torch.from_numpy(np.bincount(low[same], minlength=self.num_classes + 1))
        self._pending.append(windows[~same])
        self._pending_bytes += self._pending[-1].nbytes
        if self._pending_bytes > _CHUNK_BYTES:
            self.flush()

    def flush(self):
        """Process the mixed windows that are waiting for a full chunk."""
        if not self._pending_bytes:
            return
        windows = np.concatenate(self._pending)
        self._pending, self._pending_bytes = [], 0
        self._keep(windows)
        if self.moment is not None:
            for classes, onehot in one_hot_groups(torch.from_numpy(windows), self.num_classes):
                product = (onehot.T @ onehot).view(len(classes), self.area, len(classes), self.area)
                for i, row in enumerate(classes):
                    for j, column in enumerate(classes[i:], start=i):
                        self.moment[row, column] += product[i, :, j]

    def _split(self, label):
        r, name = self.scale_factor, 'fit_dupsampling'
        if label.ndim != 2 or min(label.shape) < r:
            raise ValueError(f'{name}: each label map must be (H, W) with both at least the window edge {r}, but got the shape {label.shape}')
        void = label == self.ignore_index
        wrong = label[~void & ((label < 0) | (label >= self.num_classes))]
        if len(wrong):
            raise ValueError(f'{name}: labels must be in [0, {self.num_classes}) or {self.ignore_index}, but got {np.unique(wrong)[:8].tolist()}')
        label = np.where(void, self.num_classes, label).astype(np.uint8)
        label = np.pad(label, [(0, -size % r) for size in label.shape], constant_values=self.num_classes)
        if self.void == 'class0':
            label[label == self.num_classes] = 0
        elif self.void == 'nearest':
            label = _fill_nearest(label, self.num_classes)
        height, width = label.shape
        windows = label.reshape(height // r, r, width // r, r).swapaxes(1, 2).reshape(-1, self.area)
        return windows[(windows != self.num_classes).all(axis=1)] if self.void == 'drop' else windows

    def _keep(self, windows):
        room = max(len(self._sample) - self.mixed, 0)
        self._sample[self.mixed : self.mixed + len(windows[:room])] = windows[:room]
        rest = windows[room:]
        if len(rest):  # reservoir sampling: the i-th window replaces a kept one with probability max_windows / i
            first = self.mixed + room
            slot = self._random.integers(0, np.arange(first, first + len(rest)) + 1)
            hit = slot < len(self._sample)
            self._sample[slot[hit]] = rest[hit]
        self.mixed += len(windows)


def _fill_nearest(label, void):
    from cv2 import DIST_L2, DIST_LABEL_PIXEL, DIST_MASK_5, distanceTransformWithLabels

    mask = label == void
    if not mask.any() or mask.all():
        return label
    _, nearest = distanceTransformWithLabels(mask.astype(np.uint8), DIST_L2, DIST_MASK_5, labelType=DIST_LABEL_PIXEL)
    value = np.zeros(nearest.max() + 1, dtype=label.dtype)
    value[nearest[~mask]] = label[~mask]
    return value[nearest]


def one_hot_groups(windows: Tensor, num_classes: int, max_bytes: int = 256 << 20) -> Iterator[tuple[list[int], Tensor]]:
    """Group windows by the set of classes that they hold and encode each group in those classes' columns only.

    Args:
        windows: ``(M, r^2)``, uint8; the value ``num_classes`` is void.
        num_classes: Number of classes.
        max_bytes: Largest encoded block.

    Yields:
        The k classes, ascending, and the block ``(m, k r^2)`` in float32: class-major columns, as ``pixel_shuffle`` reads them.
    """
    area = windows.shape[1]
    present = torch.zeros(len(windows), num_classes + 1, dtype=torch.bool)
    for rows in torch.arange(len(windows)).split(1 << 16):  # scatter wants int64 indices: eight bytes a pixel
        present[rows] = present[rows].scatter_(1, windows[rows].long(), True)
    packed = np.packbits(present[:, :num_classes].numpy(), axis=1)
    _, first, group = np.unique(packed.view(f'V{packed.shape[1]}').ravel(), return_index=True, return_inverse=True)
    order = torch.from_numpy(np.argsort(group, kind='stable'))
    for representative, members in zip(first, order.split(np.bincount(group).tolist()), strict=True):
        classes = present[representative, :num_classes].nonzero().flatten()
        if not len(classes):  # void alone: no column at all
            continue
        for rows in members.split(max(1, max_bytes // (4 * area * len(classes)))):
            block = windows[rows].unsqueeze(1) == classes.to(torch.uint8).view(1, -1, 1)
            yield classes.tolist(), block.flatten(1).float()


def _dense(windows, num_classes):
    onehot = F.one_hot(windows.long(), num_classes + 1)[..., :num_classes]
    return onehot.transpose(1, 2).flatten(1).float()


def _single_windows(windows: LabelWindows):
    classes = windows.single[: windows.num_classes].nonzero().flatten()
    return classes, classes.to(torch.uint8).unsqueeze(1).expand(-1, windows.area)


def _exact_pca(windows: LabelWindows, channels, seed, progress):
    classes, area, total = windows.num_classes, windows.area, windows.total
    blocks = windows.moment
    for row, count in enumerate(windows.single[:classes].tolist()):
        blocks[row, row] += count
        for column in range(row):
            blocks[row, column] = blocks[column, row].T
    moment = blocks.transpose(1, 2).reshape(classes * area, classes * area)
    mean = moment.diagonal() / total  # a one-hot value is its own square
    moment.div_(total).addr_(mean, mean, alpha=-1)
    progress('eigenvectors')
    return mean, *_leading_eigenvectors(moment, channels, seed)


def _leading_eigenvectors(matrix, count, seed, depth=6, tolerance=1e-10):
    """Largest eigenvalues and their vectors by restarted block Krylov iteration: seconds, where the dense solver takes a minute for 64 of 5376.

    A vector is done when its residual is below ``tolerance`` of the largest eigenvalue, which bounds its angle by that over the gap.
    """
    block = count + 16
    if 2 * block * depth > len(matrix):
        values, vectors = torch.linalg.eigh(matrix)
        return values.flip(0)[:count], vectors[:, -count:].flip(1)
    basis = torch.randn(len(matrix), block, generator=torch.Generator().manual_seed(seed), dtype=matrix.dtype)
    while True:
        krylov = [torch.linalg.qr(basis).Q]
        for _ in range(depth - 1):
            krylov.append(torch.linalg.qr(matrix @ krylov[-1]).Q)
        krylov = torch.linalg.qr(torch.cat(krylov, dim=1)).Q
        product = matrix @ krylov
        small = krylov.T @ product
        values, rotation = torch.linalg.eigh((small + small.T) / 2)
        values, rotation = values.flip(0), rotation.flip(1)
        basis = krylov @ rotation[:, :block]
        residual = (product @ rotation[:, :count] - basis[:, :count] * values[:count]).norm(dim=0)
        if residual.max() <= tolerance * values[0].clamp_min(1e-300):
            return values[:count], basis[:, :count]


def _randomized_pca(windows: LabelWindows, channels, seed, progress, oversampling=16, tolerance=1e-5, max_rounds=40):
    classes, area, total = windows.num_classes, windows.area, windows.total
    size = classes * area
    scale = windows.mixed / max(len(windows.kept), 1)
    single = windows.single[:classes].double()

    mean = single.repeat_interleave(area)
    for group, onehot in one_hot_groups(windows.kept, classes):
        mean.view(classes, area)[group] += scale * onehot.sum(dim=0, dtype=torch.float64).view(-1, area)
    mean /= total

    def covariance(basis):
        product = torch.zeros_like(basis)
        views, basis32 = product.view(classes, area, -1), basis.float().view(classes, area, -1)
        for group, onehot in one_hot_groups(windows.kept, classes):
            part = onehot.T @ (onehot @ basis32[group].flatten(0, 1))
            views[group] += scale * part.view(len(group), area, -1)
        views += (single.view(-1, 1) * basis.view(classes, area, -1).sum(dim=1)).unsqueeze(1)
        return product / total - mean.unsqueeze(1) * (mean @ basis)

    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(size, min(channels + oversampling, size), generator=generator, dtype=torch.float64)).Q
    captured = 0.0
    for step in range(max_rounds):
        progress(f'subspace iteration {step + 1}')
        product = covariance(basis)
        small = basis.T @ product
        variance, rotation = torch.linalg.eigh((small + small.T) / 2)
        best = float(variance[-channels:].sum())
        if best - captured <= tolerance * best:
            break
        captured, basis = best, torch.linalg.qr(product).Q
    return mean, variance.flip(0)[:channels], (basis @ rotation)[:, -channels:].flip(1)


def _descend(windows: LabelWindows, channels, hidden, seed, steps, batch_size, progress):
    """Minimise Eq. 3 with Adam; the mean is the bias that it starts from."""
    size = windows.num_classes * windows.area
    generator = torch.Generator().manual_seed(seed)
    single_classes, single = _single_windows(windows)
    single_weight = windows.single[single_classes].double()
    kept, share = windows.kept, windows.mixed / windows.total

    def draw(count):
        from_kept = int((torch.rand(count, generator=generator) < share).sum()) if len(single) else count
        rows = [kept[torch.randint(len(kept), (from_kept,), generator=generator)]] if from_kept else []
        if count - from_kept:
            rows.append(single[torch.multinomial(single_weight, count - from_kept, replacement=True, generator=generator)])
        return _dense(torch.cat(rows), windows.num_classes)

    mean = draw(4096).mean(dim=0)

    def layer(out_channels, in_channels):
        spread = max(out_channels, in_channels) ** 0.5  # the long side has unit length, as PCA's columns have
        return torch.randn(out_channels, in_channels, generator=generator) / spread, torch.zeros(out_channels)

    state = {}
    state['weight'], _ = layer(size, hidden or channels)
    state['bias'] = mean.clone()
    state['projection'], _ = layer(hidden or channels, size)
    state['projection_bias'] = -state['projection'] @ mean
    if hidden:
        state['hidden_weight'], state['hidden_bias'] = layer(hidden, channels)
        state['projection_hidden_weight'], state['projection_hidden_bias'] = layer(channels, hidden)
    optimizer = torch.optim.Adam([value.requires_grad_() for value in state.values()], lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        if step % 50 == 0:
            progress(f'step {step} of {steps}')
        batch = draw(batch_size)
        loss = (decompress(compress(batch, state), state) - batch).square().sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return {name: value.detach() for name, value in state.items()}


def compress(onehot: Tensor, state: dict[str, Tensor]) -> Tensor:
    """``x = P (v - mean)``, or the encoder of the non-linear variant, for vectors ``(M, C r^2)``; ``(M, channels)``."""
    value = F.linear(onehot, state['projection'], state['projection_bias'])
    if 'projection_hidden_weight' in state:
        value = F.linear(value.relu(), state['projection_hidden_weight'], state['projection_hidden_bias'])
    return value


def decompress(value: Tensor, state: dict[str, Tensor]) -> Tensor:
    """``v~ = W x + mean``, or the decoder of the non-linear variant, for ``(M, channels)``; ``(M, C r^2)``."""
    if 'hidden_weight' in state:
        value = F.linear(value, state['hidden_weight'], state['hidden_bias']).relu()
    return F.linear(value, state['weight'], state['bias'])


@torch.no_grad()
def reconstruction_confusion(windows: LabelWindows, state: dict[str, Tensor], max_windows: int = 200_000, batch_size: int = 4096) -> Tensor:
    """Confusion matrix ``(label, prediction)`` of labels that went through ``compress`` and ``decompress``: what W can express at best.

    At most about ``max_windows`` of the kept mixed windows are tried, evenly spaced, and weighted by their share: the counts are estimates where
    there are more.
    """
    classes, area = windows.num_classes, windows.area
    confusion = torch.zeros(classes, classes, dtype=torch.float64)

    def count(labels, weight):
        scores = decompress(compress(_dense(labels, classes), state), state).view(-1, classes, area)
        cell = labels.long() * classes + scores.argmax(dim=1)
        weight = weight.view(-1, 1).expand_as(cell)
        valid = labels < classes
        confusion.view(-1).add_(torch.bincount(cell[valid], weight[valid], minlength=classes**2))

    single_classes, single = _single_windows(windows)
    if len(single):
        count(single, windows.single[single_classes].double())
    tried = windows.kept[:: max(1, len(windows.kept) // max_windows)]
    scale = windows.mixed / max(len(tried), 1)
    for batch in tried.split(batch_size):
        count(batch, torch.full((len(batch),), scale, dtype=torch.float64))
    return confusion


def mean_iou(confusion: Tensor) -> float:
    """Mean intersection over union, in percent, over the classes that occur in labels or predictions."""
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    return float(100 * (confusion.diagonal()[union > 0] / union[union > 0]).mean())


def fit_dupsampling(
    labels: Iterable,
    num_classes: int,
    scale_factor: int = 16,
    channels: int = 64,
    method: str = 'auto',
    void: str = 'zero',
    ignore_index: int = 255,
    max_windows: int = 1_000_000,
    steps: int = 2000,
    batch_size: int = 256,
    seed: int = 0,
    progress=lambda text: None,
) -> dict:
    """Fit the projection of :class:`DUpsampling` to label maps.

    Splits every map into ``scale_factor`` x ``scale_factor`` windows ``v`` (one-hot, ``N = C r^2`` values) and minimises
    ``sum |v - mean - W P (v - mean)|^2``: Eq. 3 of Tian et al., "Decoders Matter for Semantic Segmentation", CVPR 2019. PCA gives
    ``P = W^T`` with orthonormal columns. Memory is bounded by ``max_windows * r^2`` bytes and, for the exact method, four float64 matrices
    ``N x N``.

    Args:
        labels: Label maps ``(H, W)`` of integers, read once, in order.
        num_classes: Number of classes C, 2 to 255.
        scale_factor: Window edge r, the ratio of the label map to the features.
        channels: Columns of W (the paper's ``C~``), at most N.
        method: ``'exact'`` PCA by the dense covariance of all windows; ``'randomized'`` PCA by subspace iteration on the kept windows;
            ``'sgd'`` Eq. 3 without the orthogonality constraint; ``'autoencoder'`` the non-linear variant ``N - 4 C~ - C~ - 4 C~ - N`` with ReLU (the
            paper gives no sizes); ``'auto'`` exact up to 8192 dimensions and randomized above.
        void: Meaning of void and padded pixels, see :class:`LabelWindows`.
        ignore_index: Label of void pixels.
        max_windows: Most windows of several classes to keep. The randomized and gradient methods and the mIoU see this uniform sample alone.
        steps: Steps of the gradient methods.
        batch_size: Windows in a step of the gradient methods.
        seed: Seed of every random choice.
        progress: Called with a line of text at each stage.

    Returns:
        The layer's state (``weight (N, channels)``, ``bias (N,)`` the mean, ``projection``, ...; rows run class, row, column, as ``pixel_shuffle``
        reads them, where the paper writes row, column, class) with ``num_classes``, ``scale_factor``, ``channels``, ``method``, ``void``,
        ``windows``, ``mixed_windows``, ``explained_variance_ratio`` (PCA only) and ``miou``: that of the reconstructed labels in percent. It compares
        fits and is no upper bound for a decoder: ``projection`` minimises squared distances, other features of the same W can restore more labels.

    Raises:
        ValueError: If an argument is out of range, a label is, a map is smaller than a window, or there is no labelled window.

    Example:
        >>> label = torch.arange(8).view(1, 8).expand(8, 8) // 3
        >>> fit = fit_dupsampling([label], num_classes=3, scale_factor=4, channels=2)
        >>> fit['weight'].shape, fit['miou']
        (torch.Size([48, 2]), 100.0)
    """
    size = num_classes * scale_factor**2
    for name, value, rule, good in (
        ('num_classes', num_classes, 'be 2 to 255', 2 <= num_classes <= 255),
        ('scale_factor', scale_factor, 'be at least 1', scale_factor >= 1),
        ('channels', channels, f'be 1 to num_classes * scale_factor ** 2 = {size}', 1 <= channels <= size),
        ('method', method, f'be one of {METHODS}', method in METHODS),
        ('void', void, f'be one of {VOID_RULES}', void in VOID_RULES),
        ('max_windows', max_windows, 'be at least 1', max_windows >= 1),
    ):
        if not good:
            raise ValueError(f'fit_dupsampling: {name} must {rule}, but got {value!r}')
    if method == 'auto':
        method = 'exact' if size <= EXACT_LIMIT else 'randomized'
    windows = LabelWindows(num_classes, scale_factor, void, ignore_index, method == 'exact', max_windows, seed)
    for label in labels:
        windows.add(label)
    windows.flush()
    if not windows.total - int(windows.single[num_classes]):
        raise ValueError(f'fit_dupsampling: labels must hold at least one labelled window, but got {windows.total} windows, all void')

    result = {}
    if method in ('sgd', 'autoencoder'):
        state = _descend(windows, channels, 4 * channels if method == 'autoencoder' else 0, seed, steps, batch_size, progress)
    else:
        if method == 'exact':
            mean, variance, vectors = _exact_pca(windows, channels, seed, progress)
        else:
            mean, variance, vectors = _randomized_pca(windows, channels, seed, progress)
        result['explained_variance_ratio'] = (variance / (mean - mean.square()).sum().clamp_min(1e-12)).float()
        state = {'weight': vectors, 'bias': mean, 'projection': vectors.T, 'projection_bias': -vectors.T @ mean}
        state = {name: value.float().contiguous() for name, value in state.items()}
    progress('reconstruction')
    return {
        **state,
        **result,
        'num_classes': num_classes,
        'scale_factor': scale_factor,
        'channels': channels,
        'method': method,
        'void': void,
        'windows': windows.total,
        'mixed_windows': windows.mixed,
        'miou': mean_iou(reconstruction_confusion(windows, state)),
    }
