"""Slow float64 oracles, written from the papers alone: they share no code with the package."""

import math

import numpy as np
import torch
import torch.nn.functional as F


def _windows(height, width, kernel_size, stride, padding, dilation, ceil_mode):
    """Yield ((row, column) of the output, list of the input pixels in its window); windows start at -padding, torch's rule for the last one."""
    starts = []
    for size, k, s, p, d in zip((height, width), kernel_size, stride, padding, dilation, strict=True):
        axis, start = [], -p
        while start + d * (k - 1) < size + p or (ceil_mode and start < size and axis and axis[-1] + d * (k - 1) < size + p - 1):
            axis.append(start)
            start += s
        starts.append(axis)
    for i, top in enumerate(starts[0]):
        for j, left in enumerate(starts[1]):
            rows = [top + dilation[0] * a for a in range(kernel_size[0])]
            columns = [left + dilation[1] * b for b in range(kernel_size[1])]
            yield (i, j), [(r, c) for r in rows for c in columns if 0 <= r < height and 0 <= c < width]


def output_shape(shape, kernel_size, stride, padding, dilation=(1, 1), ceil_mode=False):
    """Shape of the pooled (N, C, H, W)."""
    *_, ((row, column), _) = _windows(*shape[2:], kernel_size, stride, padding, dilation, ceil_mode)
    return (*shape[:2], row + 1, column + 1)


def _pool(value, argument, grad_output, window, rule, argument_per_window):
    """Apply ``rule(values, arguments) -> (y, dy/dvalue, dy/dargument)`` to every window of (N, C, H, W) float64 tensors."""
    value, argument = value.double(), argument.double()
    windows = list(_windows(*value.shape[2:], *window))
    shape = output_shape(value.shape, *window)
    output, grad_value, grad_argument = value.new_zeros(shape), value.new_zeros(value.shape), value.new_zeros(argument.shape)
    for n in range(shape[0]):
        for c in range(shape[1]):
            for (i, j), cells in windows:
                x = [float(value[n, c, r, q]) for r, q in cells]
                f = float(argument[n, c, i, j]) if argument_per_window else [float(argument[n, c, r, q]) for r, q in cells]
                y, dx, df = rule(x, f)
                output[n, c, i, j] = y
                if grad_output is None:
                    continue
                g = float(grad_output[n, c, i, j])
                for (r, q), d in zip(cells, dx, strict=True):
                    grad_value[n, c, r, q] += g * d
                if argument_per_window:
                    grad_argument[n, c, i, j] += g * df
                else:
                    for (r, q), d in zip(cells, df, strict=True):
                        grad_argument[n, c, r, q] += g * d
    return output, grad_value, grad_argument


def _mean(x):
    n = len(x)
    return sum(x) / n, [1 / n] * n, [0.0] * n


def _lip(x, logit):
    if any(math.isnan(v) or v == math.inf for v in logit):
        return math.nan, [math.nan] * len(x), [math.nan] * len(x)
    top = max(logit)
    if top == -math.inf:
        return _mean(x)
    e = [math.exp(v - top) for v in logit]
    w = [v / sum(e) for v in e]
    y = sum(a * b for a, b in zip(w, x, strict=True))
    return y, w, [a * (b - y) for a, b in zip(w, x, strict=True)]


def _lan(x, importance):
    if not any(importance):
        return _mean(x)
    total = sum(importance)
    y = sum(f * v for f, v in zip(importance, x, strict=True)) / total
    return y, [f / total for f in importance], [(v - y) / total for v in x]


def _polynomial(x, a):
    if any(math.isnan(v) for v in x):
        return math.nan, [math.nan] * len(x), math.nan
    below = [v < 0 for v in x]
    x = [max(v, 0.0) for v in x]
    n, top = len(x), max(x)
    if top == 0:
        return 0.0, [0.0 if b else 1 / n for b in below], 0.0
    r = [v / top for v in x]
    e = [v**a for v in r]  # Python's 0.0 ** 0 is 1
    w = [v / sum(e) for v in e]
    y = sum(u * v for u, v in zip(w, r, strict=True))  # in units of top
    dx = []
    for b, u, v in zip(below, w, r, strict=True):
        floor = max(v, 1e-6) if a < 1 else v
        dx.append(0.0 if b else u * (1 + a) - (a * y * floor ** (a - 1) / sum(e) if a else 0.0))
    return y * top, dx, top * sum(u * (v - y) * math.log(v) for u, v in zip(w, r, strict=True) if v)


def lip_pool2d(input, logit, grad_output=None, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(1, 1), ceil_mode=False):
    """LIP, Eq. 5: output, gradient of input, gradient of logit."""
    return _pool(input, logit, grad_output, (kernel_size, stride, padding, dilation, ceil_mode), _lip, False)


def lan_pool2d(input, importance, grad_output=None, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(1, 1), ceil_mode=False):
    """LIP, Eq. 1: output, gradient of input, gradient of importance."""
    return _pool(input, importance, grad_output, (kernel_size, stride, padding, dilation, ceil_mode), _lan, False)


def polynomial_pool2d(input, alpha, grad_output=None, kernel_size=(2, 2), stride=(2, 2), padding=(0, 0), ceil_mode=False):
    """P-pooling, Eq. 1 with alpha per window: output, gradient of input, gradient of alpha."""
    return _pool(input, alpha, grad_output, (kernel_size, stride, padding, (1, 1), ceil_mode), _polynomial, True)


# --- Pyramidal output representation: "Specialize and Fuse", sections 3.1 (ground truth, training phase, Eq. 1) and Eq. 2 -------------------------


def pyramid_labels(label, strides, ignore_index=255, void_rule='agree'):
    """Label and unity of every cell, one cell after the other; level 0 is the coarsest. ``label`` is an ``(H, W)`` array."""
    semantic, unity = [], []
    for level, stride in enumerate(strides):
        rows, columns = label.shape[0] // stride, label.shape[1] // stride
        semantic.append(np.full((rows, columns), ignore_index))
        if level < len(strides) - 1:
            unity.append(np.full((rows, columns), ignore_index))
        for row in range(rows):
            for column in range(columns):
                cell = label[row * stride : (row + 1) * stride, column * stride : (column + 1) * stride]
                if level == len(strides) - 1:  # the finest level is a downsampled label map, mixed or not
                    semantic[level][row, column] = cell[stride // 2, stride // 2]
                    continue
                seen = {int(pixel) for pixel in cell.flat}
                void = ignore_index in seen
                seen.discard(ignore_index)
                if not seen or (void and void_rule == 'strict'):
                    continue
                unity[level][row, column] = len(seen) == 1
                if len(seen) == 1:
                    semantic[level][row, column] = seen.pop()
    return semantic, unity


def pyramid_relabel(semantic, unity, probability, mode='tp', threshold=0.5, ignore_index=255):
    """Every cell asks all its ancestors whether one of them has already done its work."""
    semantic, unity = [level.copy() for level in semantic], [level.copy() for level in unity]
    truth = [level.copy() for level in unity]
    for maps in (semantic, unity):
        for level, cells in enumerate(maps):
            for row, column in np.ndindex(cells.shape):
                for above in range(level):
                    step = 2 ** (level - above)
                    ancestor = (row // step, column // step)
                    right = mode == 'gt' or (mode == 'tp' and probability[above][ancestor] >= threshold)
                    if right and truth[above][ancestor] == 1:
                        cells[row, column] = ignore_index
    return semantic, unity


def pyramid_loss(semantic_logits, unity_logits, semantic, unity, ignore_index=255):
    """Eq. 1 for one image: logits ``(C, h, w)`` and ``(h, w)``, means over the cells that have a label."""
    total = 0.0
    for logits, label in zip(semantic_logits, semantic, strict=True):
        terms = [
            np.log(np.exp(logits[:, row, column].astype(float)).sum()) - logits[label[row, column], row, column]
            for row, column in np.ndindex(label.shape)
            if label[row, column] != ignore_index
        ]
        total += sum(terms) / max(len(terms), 1) / len(semantic)
    for logits, truth in zip(unity_logits, unity, strict=True):
        terms = []
        for cell in np.ndindex(truth.shape):
            if truth[cell] != ignore_index:
                probability = 1 / (1 + np.exp(-float(logits[cell])))
                terms.append(-np.log(probability if truth[cell] == 1 else 1 - probability))
        total += sum(terms) / max(len(terms), 1) / len(unity)
    return total


def pyramid_fuse(semantic, probability, threshold=0.5):
    """Eq. 2 for one image: each finest cell climbs down from the coarsest level. Returns the fused map ``(C, h, w)`` and the levels ``(h, w)``."""
    fused, chosen = np.zeros_like(semantic[-1]), np.zeros(semantic[-1].shape[1:], dtype=int)
    for row, column in np.ndindex(chosen.shape):
        for level in range(len(semantic)):
            step = 2 ** (len(semantic) - 1 - level)
            cell = (row // step, column // step)
            if level == len(semantic) - 1 or probability[level][cell] >= threshold:
                fused[:, row, column] = semantic[level][(slice(None), *cell)]
                chosen[row, column] = level
                break
    return fused, chosen


# --- Poolings that the P-pooling paper compares ------------------------------------------------------------------------------------------------


def _pool_by(rule, input, kernel_size, stride, padding, ceil_mode):
    """Output of ``rule(values, their places in the window, channel)`` over every window of a float64 (N, C, H, W) tensor."""
    window = (kernel_size, stride, padding, (1, 1), ceil_mode)
    output = input.new_zeros(output_shape(input.shape, *window))
    for n, c in np.ndindex(*input.shape[:2]):
        for (i, j), cells in _windows(*input.shape[2:], *window):
            top, left = i * stride[0] - padding[0], j * stride[1] - padding[1]
            places = [(row - top) * kernel_size[1] + column - left for row, column in cells]
            output[n, c, i, j] = rule([float(input[n, c, row, column]) for row, column in cells], places, c)
    return output


def gated_pool2d(input, mask, *window):
    """Lee et al.: a gate between max and mean. ``mask``: one weight for each place of a window."""

    def rule(x, places, channel):
        gate = 1 / (1 + math.exp(-sum(mask[place] * value for place, value in zip(places, x, strict=True))))
        return gate * max(x) + (1 - gate) * sum(x) / len(x)

    return _pool_by(rule, input, *window)


def detail_preserving_pool2d(input, alpha, exponent, symmetric, *window):
    """Saeedan et al., lite: ``alpha`` and ``exponent`` one a channel."""

    def rule(x, places, channel):
        base = sum(x) / len(x)
        reward = []
        for value in x:
            difference = value - base if symmetric else max(0.0, value - base)
            reward.append(alpha[channel] + math.sqrt(difference**2 + 1e-3) ** exponent[channel])
        return sum(f * v for f, v in zip(reward, x, strict=True)) / sum(reward)

    return _pool_by(rule, input, *window)


def lp_pool2d(input, norm, mean, *window):
    """The p-norm of each window, ``norm`` one a channel."""

    def rule(x, places, channel):
        total = sum(abs(value) ** norm[channel] for value in x)
        return (total / len(x) if mean else total) ** (1 / norm[channel])

    return _pool_by(rule, input, *window)


def label_window_vectors(labels, num_classes, ratio, void=255):
    """One-hot vectors of all ratio x ratio windows, order class, row, column; void and padding are zero vectors."""
    vectors = []
    for label in labels:
        height, width = label.shape
        for top in range(0, height, ratio):
            for left in range(0, width, ratio):
                vector = np.zeros((num_classes, ratio, ratio))
                for y in range(min(ratio, height - top)):
                    for x in range(min(ratio, width - left)):
                        value = int(label[top + y, left + x])
                        if value != void:
                            vector[value, y, x] = 1.0
                vectors.append(vector.ravel())
    return np.stack(vectors)


def dense_pca(vectors, channels):
    """Mean, the leading eigenvalues of the covariance (over n) and their eigenvectors as columns."""
    mean = vectors.mean(axis=0)
    centred = vectors - mean
    values, columns = np.linalg.eigh(centred.T @ centred / len(vectors))
    return mean, values[::-1][:channels], columns[:, ::-1][:, :channels]


def _norm_shapes(name, channels, batch):
    """Shapes of an affine instance norm or, with ``batch``, of a batch norm."""
    shapes = {f'{name}.weight': (channels,), f'{name}.bias': (channels,)}
    if batch:
        shapes |= {f'{name}.running_mean': (channels,), f'{name}.running_var': (channels,), f'{name}.num_batches_tracked': ()}
    return shapes


def lip_resnet_shapes(blocks):
    """Keys and shapes in the LIP authors' ImageNet files of a ResNet with ``blocks`` blocks a stage."""
    shapes = {'conv1.weight': (64, 3, 7, 7), **_norm_shapes('bn1', 64, True), 'maxpool.logit.conv.weight': (64, 64, 3, 3)}
    shapes |= _norm_shapes('maxpool.logit.bn', 64, False)
    width = 64
    for stage, count in enumerate(blocks, 1):
        planes = 32 * 2**stage
        for index in range(count):
            block = f'layer{stage}.{index}'
            lip = stage > 1 and index == 0
            if lip:
                for i, shape in ((1, (128, width, 1, 1)), (2, (128, 128, 3, 3))):
                    shapes |= {f'{block}.bottleneck_shared.logit.conv{i}.weight': shape}
                    shapes |= _norm_shapes(f'{block}.bottleneck_shared.logit.bn{i}', 128, False)
            shapes |= {f'{block}.conv1.weight': (planes, width, 1, 1), **_norm_shapes(f'{block}.bn1', planes, True)}
            if lip:
                shapes |= {f'{block}.conv2.0.postprocessing.conv.weight': (planes, 128, 1, 1)}
                shapes |= {**_norm_shapes(f'{block}.conv2.0.postprocessing.bn', planes, False), f'{block}.conv2.1.weight': (planes, planes, 1, 1)}
            else:
                shapes |= {f'{block}.conv2.weight': (planes, planes, 3, 3)}
            shapes |= {**_norm_shapes(f'{block}.bn2', planes, True), f'{block}.conv3.weight': (4 * planes, planes, 1, 1)}
            shapes |= _norm_shapes(f'{block}.bn3', 4 * planes, True)
            if lip:
                shapes |= {f'{block}.downsample.lip.postprocessing.conv.weight': (width, 128, 1, 1)}
                shapes |= _norm_shapes(f'{block}.downsample.lip.postprocessing.bn', width, False)
            if index == 0:
                shapes |= {f'{block}.downsample.conv.weight': (4 * planes, width, 1, 1), **_norm_shapes(f'{block}.downsample.bn', 4 * planes, True)}
            width = 4 * planes
    return shapes | {'fc.weight': (1000, width), 'fc.bias': (1000,)}


def lip_densenet_shapes(layers=(6, 12, 24, 16)):
    """The same for their DenseNet with ``layers`` dense layers a block."""
    shapes = {'features.conv0.weight': (64, 3, 7, 7), **_norm_shapes('features.norm0', 64, True)}
    shapes |= {'features.pool0.logit.conv1.weight': (64, 64, 3, 3), **_norm_shapes('features.pool0.logit.bn1', 64, False)}
    width = 64
    for block, count in enumerate(layers, 1):
        for index in range(1, count + 1):
            layer = f'features.denseblock{block}.denselayer{index}'
            shapes |= {**_norm_shapes(f'{layer}.norm1', width, True), f'{layer}.conv1.weight': (128, width, 1, 1)}
            shapes |= {**_norm_shapes(f'{layer}.norm2', 128, True), f'{layer}.conv2.weight': (32, 128, 3, 3)}
            width += 32
        if block < len(layers):
            name = f'features.transition{block}'
            shapes |= {**_norm_shapes(f'{name}.norm', width, True), f'{name}.conv.weight': (width // 2, width, 1, 1)}
            width //= 2
            for i, shape in ((1, (128, width, 1, 1)), (2, (128, 128, 3, 3)), (3, (width, 128, 1, 1))):
                shapes |= {f'{name}.pool.logit.conv{i}.weight': shape, **_norm_shapes(f'{name}.pool.logit.bn{i}', shape[0], False)}
    return shapes | _norm_shapes('features.norm5', width, True) | {'classifier.weight': (1000, width), 'classifier.bias': (1000,)}


class LIPNetwork:
    """The LIP paper's Fig. 4 and section 3.3, step by step, on float64 weights under the authors' names."""

    def __init__(self, state):
        self.state = {key: tensor.double() for key, tensor in state.items()}

    def conv(self, x, name, stride=1):
        weight = self.state[f'{name}.weight']
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2)

    def batch_norm(self, x, name):
        weight, bias, mean, var = (self.state[f'{name}.{part}'][:, None, None] for part in ('weight', 'bias', 'running_mean', 'running_var'))
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def instance_norm(self, x, name):
        mean = x.mean((2, 3), keepdim=True)
        var = (x - mean).square().mean((2, 3), keepdim=True)
        return (x - mean) / (var + 1e-5).sqrt() * self.state[f'{name}.weight'][:, None, None] + self.state[f'{name}.bias'][:, None, None]

    def logit(self, x, conv, norm):
        """Top of every logit module: convolution, affine instance norm, and a sigmoid amplified to 12."""
        return 12 / (1 + (-self.instance_norm(self.conv(x, conv), norm)).exp())

    def trunk(self, x, name):
        """Fig. 4e up to its top: a 1x1 and a 3x3 convolution, each with instance norm and ReLU."""
        for i in (1, 2):
            x = self.instance_norm(self.conv(x, f'{name}.conv{i}'), f'{name}.bn{i}').clamp(min=0)
        return x

    def resnet_block(self, x, name, lip):
        """Fig. 4b with ``lip``, else the plain bottleneck block with stride 1."""
        out = self.batch_norm(self.conv(x, f'{name}.conv1'), f'{name}.bn1').clamp(min=0)
        shortcut, last = x, f'{name}.conv2'
        if lip:
            shared = self.trunk(x, f'{name}.bottleneck_shared.logit')
            top, last = f'{name}.conv2.0.postprocessing', f'{name}.conv2.1'
            out = lip_pool2d(out, self.logit(shared, f'{top}.conv', f'{top}.bn'))[0]
            top = f'{name}.downsample.lip.postprocessing'
            shortcut = lip_pool2d(x, self.logit(shared, f'{top}.conv', f'{top}.bn'))[0]
        out = self.batch_norm(self.conv(out, last), f'{name}.bn2').clamp(min=0)
        out = self.batch_norm(self.conv(out, f'{name}.conv3'), f'{name}.bn3')
        if f'{name}.downsample.conv.weight' in self.state:
            shortcut = self.batch_norm(self.conv(shortcut, f'{name}.downsample.conv'), f'{name}.downsample.bn')
        return (out + shortcut).clamp(min=0)

    def resnet(self, image, blocks):
        """Scores (N, 1000) of the LIP-ResNet."""
        x = self.batch_norm(self.conv(image.double(), 'conv1', 2), 'bn1').clamp(min=0)
        x = lip_pool2d(x, self.logit(x, 'maxpool.logit.conv', 'maxpool.logit.bn'))[0]
        for stage, count in enumerate(blocks, 1):
            for index in range(count):
                x = self.resnet_block(x, f'layer{stage}.{index}', stage > 1 and index == 0)
        return x.mean((2, 3)) @ self.state['fc.weight'].T + self.state['fc.bias']

    def densenet(self, image, layers=(6, 12, 24, 16)):
        """Scores (N, 1000) of the LIP-DenseNet."""
        x = self.batch_norm(self.conv(image.double(), 'features.conv0', 2), 'features.norm0').clamp(min=0)
        x = lip_pool2d(x, self.logit(x, 'features.pool0.logit.conv1', 'features.pool0.logit.bn1'))[0]
        for block, count in enumerate(layers, 1):
            for index in range(1, count + 1):
                layer = f'features.denseblock{block}.denselayer{index}'
                new = self.conv(self.batch_norm(x, f'{layer}.norm1').clamp(min=0), f'{layer}.conv1')
                new = self.conv(self.batch_norm(new, f'{layer}.norm2').clamp(min=0), f'{layer}.conv2')
                x = torch.cat([x, new], 1)
            if block < len(layers):
                name = f'features.transition{block}'
                x = self.conv(self.batch_norm(x, f'{name}.norm').clamp(min=0), f'{name}.conv')
                top = f'{name}.pool.logit'
                logit = self.logit(self.trunk(x, top), f'{top}.conv3', f'{top}.bn3')
                x = lip_pool2d(x, logit, None, (2, 2), (2, 2), (0, 0))[0]
        x = self.batch_norm(x, 'features.norm5').clamp(min=0)
        return x.mean((2, 3)) @ self.state['classifier.weight'].T + self.state['classifier.bias']
