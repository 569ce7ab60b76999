"""The DUpsampling layer."""

import copy
import math

import pytest
import reference
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from releases import needs_torch
from torch import nn

from mmpool_ext.layers import DUpsampling, fit_dupsampling


def fitted(labels, num_classes, ratio, channels, method='exact', **kwargs):
    hidden = 4 * channels if method == 'autoencoder' else None
    layer = DUpsampling(channels, num_classes, ratio, hidden_channels=hidden, **kwargs)
    layer.load_fit(fit_dupsampling(labels, num_classes, ratio, channels, method=method, steps=3))
    return layer


def test_hand_computed_window():
    """C = 2 classes, r = 2, one channel: row (class, y, x) of W goes to that class, row and column."""
    layer = DUpsampling(1, 2, 2, init='random')
    layer.init_weights()
    layer.weight.copy_(torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8]).view(8, 1))
    layer.bias.copy_(torch.tensor([0.0, 0, 0, 0, 0, 0, 0, 100]))
    with torch.no_grad():
        layer.log_temperature.fill_(math.log(2))
    output = layer(torch.tensor([[[[1.0, -1.0]]]]))
    expected = torch.tensor([[[[1.0, 2, -1, -2], [3, 4, -3, -4]], [[5, 6, -5, -6], [7, 108, -7, 92]]]]) / 2
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize('shape', [(8, 20), (13, 22), (5, 4)])
def test_restores_labels_of_any_shape_at_full_rank(shape):
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (5, *shape))
    layer = fitted(labels, 3, 4, 48)
    value, mask = layer.compress(labels)
    assert value.shape == (5, 48, -(-shape[0] // 4), -(-shape[1] // 4))
    assert mask.all()
    output = layer(value, size=shape)
    torch.testing.assert_close(output, F.one_hot(labels, 3).movedim(-1, 1).float(), atol=1e-4, rtol=0)


def test_compress_is_the_projection_of_the_windows_that_the_fit_saw():
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (4, 9, 14))
    labels[0, :4, :8] = 255
    layer = fitted(labels, 3, 4, 5)
    value, mask = layer.compress(labels)
    vectors = torch.from_numpy(reference.label_window_vectors(labels.numpy(), 3, 4)).float()
    expected = (vectors - layer.bias) @ layer.weight
    torch.testing.assert_close(value.permute(0, 2, 3, 1).reshape(-1, 5), expected, atol=1e-5, rtol=1e-5)
    assert mask[0, 0].tolist() == [[False, False, True, True], [True] * 4, [True] * 4]
    assert mask[1:].all()


@pytest.mark.parametrize('ignore_index', [0, 1, -1])
def test_compress_takes_void_of_any_label_as_no_class(ignore_index):
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (4, 9, 14))
    layer = fitted(labels, 3, 4, 5)
    labels[:, :4, :8] = 255
    labels[labels == ignore_index] = 255
    got = layer.compress(labels.masked_fill(labels == 255, ignore_index), ignore_index)
    for one, other in zip(got, layer.compress(labels), strict=True):
        torch.testing.assert_close(one, other)


def test_non_linear_variant_has_its_own_layers():
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (4, 8, 8))
    layer = fitted(labels, 3, 4, 5, method='autoencoder')
    assert layer.hidden_weight.shape == (20, 5)
    value, _ = layer.compress(labels)
    output = layer(value)
    hidden = (torch.einsum('oc,nchw->nohw', layer.hidden_weight, value) + layer.hidden_bias.view(-1, 1, 1)).relu()
    expected = F.pixel_shuffle(torch.einsum('oc,nchw->nohw', layer.weight, hidden) + layer.bias.view(-1, 1, 1), 4)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


def test_gradients_of_input_and_temperature():
    layer = DUpsampling(3, 2, 2, init='random', temperature=0.7).double()
    layer.init_weights()
    torch.nn.init.normal_(layer.bias)
    input = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, t: torch.func.functional_call(layer, {'log_temperature': t}, (x,)), (input, layer.log_temperature))


def test_temperature_divides_the_logits_and_stays_positive():
    layer = DUpsampling(3, 2, 2, init='random', temperature=0.25)
    layer.init_weights()
    input = torch.randn(1, 3, 2, 2)
    cold = layer(input)
    with torch.no_grad():
        layer.log_temperature.fill_(-math.log(0.25))
    torch.testing.assert_close(cold, layer(input) * 4)
    assert layer.temperature.item() == pytest.approx(1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    layer(input).square().sum().mul(-1).backward()
    optimizer.step()
    assert layer.temperature > 0


@pytest.mark.parametrize('trainable', [False, True])
def test_what_is_learnt(trainable):
    layer = DUpsampling(4, 2, 2, init='random', trainable=trainable)
    names = {'log_temperature', 'weight_change', 'bias_change'} if trainable else {'log_temperature'}
    assert {name for name, _ in layer.named_parameters()} == names
    assert not list(DUpsampling(4, 2, 2, init='random', learn_temperature=False).parameters())


@pytest.mark.parametrize('trainable', [False, True])
def test_a_checkpoint_fits_whatever_is_learnt(trainable):
    torch.manual_seed(0)
    layer = DUpsampling(4, 2, 2, init='random', trainable=trainable)
    layer.init_weights()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    input = torch.randn(1, 4, 3, 3)
    for other in (DUpsampling(4, 2, 2, learn_temperature=False), DUpsampling(4, 2, 2), DUpsampling(4, 2, 2, trainable=True)):
        for parameter in other.parameters():
            nn.init.normal_(parameter)  # what was learnt before is not left on top of another W
        other.load_state_dict(copy.deepcopy(layer.state_dict()))
        torch.testing.assert_close(other(input), layer(input))


def test_a_checkpoint_carries_its_temperature():
    torch.manual_seed(0)
    layer = DUpsampling(4, 2, 2, init='random', temperature=3.0)
    layer.init_weights()
    nn.init.constant_(layer.log_temperature, 0.5)
    other = DUpsampling(4, 2, 2, temperature=0.1)
    other.load_state_dict(layer.state_dict())
    assert other.temperature.item() == pytest.approx(3 * math.exp(0.5))
    older = {name: tensor for name, tensor in layer.state_dict().items() if name != 'start_temperature'}
    other.load_state_dict(older)  # its log_temperature is the logarithm of T
    assert other.temperature.item() == pytest.approx(math.exp(0.5))


@pytest.mark.parametrize('hidden', [None, 6])
def test_weight_decay_alone_keeps_temperature_and_w(hidden):
    """30,000 steps of the configs' optimiser, with decay on everything and gradients of zero."""
    layer = DUpsampling(4, 2, 2, init='random', trainable=True, temperature=3.0, hidden_channels=hidden)
    layer.init_weights()
    input = torch.randn(1, 4, 3, 3)
    before = layer(input)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.007, momentum=0.9, weight_decay=0.0001)
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for _ in range(30000):
        optimizer.step()
    assert layer.temperature.item() == pytest.approx(3)
    assert torch.equal(layer(input), before)
    nn.init.constant_(layer.weight_change, 1.0)
    layer.init_weights()
    assert not layer.weight_change.any()


def test_what_is_loaded_later_is_checked_again():
    """A W that was once good says nothing of the next checkpoint."""
    layer = DUpsampling(4, 2, 2, init='random')
    layer.init_weights()
    input = torch.randn(1, 4, 3, 3)
    layer(input)
    broken = dict(layer.state_dict(), weight=torch.full((8, 4), float('nan')))
    layer.load_state_dict(broken)
    with pytest.raises(RuntimeError, match='W must be finite, but got NaN or infinity in weight'):
        layer(input)
    layer.load_state_dict(DUpsampling(4, 2, 2).state_dict())
    with pytest.raises(RuntimeError, match='W must be fitted before the first forward'):
        layer(input)


@needs_torch(2, 6)
def test_exports_whole():
    layer = DUpsampling(4, 2, 2, init='random')
    layer.init_weights()
    input = torch.randn(2, 4, 3, 5)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend='eager')(input), layer(input))
    sizes = dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO)
    exported = torch.export.export(layer, (input,), dynamic_shapes=(sizes,)).module()
    other = torch.randn(1, 4, 7, 4)
    torch.testing.assert_close(exported(other), layer(other))


def test_a_checkpoint_is_enough(tmp_path):
    path = tmp_path / 'W.pth'
    torch.save(fit_dupsampling([torch.arange(64).view(8, 8) % 3], 3, 4, 6), path)
    layer = MODELS.build(dict(type='DUpsampling', in_channels=6, out_channels=3, scale_factor=4, weight=str(path)))
    layer.init_weights()
    torch.save(layer.state_dict(), tmp_path / 'checkpoint.pth')
    path.unlink()
    fresh = MODELS.build(dict(type='DUpsampling', in_channels=6, out_channels=3, scale_factor=4, weight=str(path)))
    fresh.load_state_dict(torch.load(tmp_path / 'checkpoint.pth'))
    input = torch.randn(1, 6, 2, 2)
    assert torch.equal(fresh(input), layer(input))


def test_unfitted_is_an_error_that_names_the_command():
    layer = DUpsampling(6, 3, 4)
    layer.init_weights()
    with pytest.raises(RuntimeError, match=r'W must be fitted before .* CONFIG --ratio 4 --channels 6 --out W.pth'):
        layer(torch.randn(1, 6, 2, 2))


def test_random_has_unit_columns():
    layer = DUpsampling(6, 3, 16, init='random')
    layer.init_weights()
    torch.testing.assert_close(layer.weight.norm(dim=0), torch.ones(6), atol=0.15, rtol=0)


def test_random_needs_no_init_weights():
    """Scripts that count operations or time a network build it and load nothing."""
    layer = DUpsampling(6, 3, 4, init='random')
    assert layer(torch.randn(1, 6, 2, 2)).any()
    drawn = layer.weight.clone()
    layer.init_weights()
    assert not torch.equal(layer.weight, drawn)


def test_head_initialisers_leave_w_alone():
    """An init_cfg over Conv2d that a parent module applies must not reach W."""
    layer = fitted(torch.randint(0, 3, (2, 8, 8)), 3, 4, 5)
    before = layer.weight.clone()
    nn.Sequential(layer).apply(lambda m: nn.init.normal_(m.weight) if isinstance(m, nn.Conv2d) else None)
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(scale_factor=8), 'scale_factor of W must be 8, but got 4; fit it anew: python -m mmpool_ext fit_dupsampling CONFIG --ratio 8'),
        (dict(out_channels=4), 'num_classes of W must be 4, but got 3'),
        (dict(in_channels=7), 'channels of W must be 7, but got 6'),
        (dict(hidden_channels=24), r"weight of W must have the shape \(48, 24\) for hidden_channels=24, but got \(48, 6\) fitted by method 'exact'"),
    ],
)
def test_w_of_another_head(arguments, message):
    fit = fit_dupsampling([torch.arange(64).view(8, 8) % 3], 3, 4, 6)
    layer = DUpsampling(**(dict(in_channels=6, out_channels=3, scale_factor=4) | arguments))
    with pytest.raises(ValueError, match=f'DUpsampling: {message}'):
        layer.load_fit(fit)


def test_a_file_that_is_no_fit():
    layer = DUpsampling(6, 3, 4)
    with pytest.raises(ValueError, match=r'weight must be a file of fit_dupsampling, but got one without .*begins with state_dict'):
        layer.load_fit(dict(state_dict={}))


def test_nan_in_w():
    fit = fit_dupsampling([torch.arange(64).view(8, 8) % 3], 3, 4, 6)
    fit['weight'][3, 2] = float('nan')
    layer = DUpsampling(6, 3, 4)
    with pytest.raises(ValueError, match='weight of W must be finite, but got 1 values'):
        layer.load_fit(fit)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(in_channels=0), r'in_channels must be 1 to out_channels \* scale_factor \*\* 2 = 12, but got 0'),
        (dict(in_channels=13), 'in_channels must be 1 to .* but got 13'),
        (dict(init='pca'), "init must be 'fitted' or 'random', but got 'pca'"),
        (dict(init='random', weight='W.pth'), "weight must be None with init='random', but got 'W.pth'"),
        (dict(temperature=0), 'temperature must be positive, but got 0'),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=f'DUpsampling: {message}'):
        DUpsampling(**(dict(in_channels=2, out_channels=3, scale_factor=2) | change))


def test_windows_must_cover_the_size():
    layer = DUpsampling(2, 3, 4, init='random')
    layer.init_weights()
    with pytest.raises(ValueError, match=r'must cover the size asked for and .* but got \(8, 8\) for \(13, 8\); scale_factor must be the stride'):
        layer(torch.randn(1, 2, 2, 2), size=(13, 8))
    with pytest.raises(ValueError, match=r'but got \(8, 8\) for \(9, 8\); the backbone rounds sizes down, so pad images to whole strides'):
        layer(torch.randn(1, 2, 2, 2), size=(9, 8))


@pytest.mark.parametrize('size', [(4, 8), (8, 4), (1, 8)])
def test_windows_that_overhang_by_a_whole_one_are_an_error(size):
    """Twice as many windows as the size holds: features of half the stride, whose top left quarter would be stretched over the image."""
    layer = DUpsampling(2, 3, 4, init='random')
    layer.init_weights()
    with pytest.raises(ValueError, match=rf'overhang it by less than a window \(4\), but got \(8, 8\) for \({size[0]}, {size[1]}\)'):
        layer(torch.randn(1, 2, 2, 2), size=size)
    assert layer(torch.randn(1, 2, 2, 2), size=(5, 5)).shape[2:] == (5, 5)
