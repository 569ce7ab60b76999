import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip('mmcv')
from mmengine.registry import MODELS

from mmpool_ext.layers.coarse_to_fine_context import ContextAttention, average_pyramid, pyramid_sampling


def build(**kwargs):
    return MODELS.build(dict(dict(type='CoarseToFineContext', in_channels=6, channels=4, key_channels=3), **kwargs))


def test_average_pyramid_pools_the_input_itself():
    input = torch.randn(2, 3, 16, 8)
    levels = average_pyramid(input, 4)
    assert [level.shape[2:] for level in levels] == [(2, 1), (4, 2), (8, 4), (16, 8)]
    for index, level in enumerate(levels):
        torch.testing.assert_close(level, nn.functional.avg_pool2d(input, 2 ** (3 - index)))


def test_pyramid_sampling_of_a_2x2_map():
    input = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    assert pyramid_sampling(input, (1, 2)).flatten().tolist() == [3, 1, 2, 3, 6]
    assert pyramid_sampling(torch.randn(2, 5, 16, 16), (1, 3, 6, 8)).shape == (2, 5, 110, 1)


def test_attention_equals_a_loop_over_pixels_and_tokens():
    torch.manual_seed(0)
    attention = ContextAttention(4, 3).double()
    input, context = torch.randn(2, 4, 3, 5).double(), torch.randn(2, 4, 7, 1).double()
    got = attention(input, context).detach().numpy()
    weights = {name: (getattr(attention, name).weight[:, :, 0, 0], getattr(attention, name).bias) for name in ('query', 'key', 'value')}

    def transform(name, vector):
        weight, bias = weights[name]
        return (weight @ vector + bias).detach().numpy()

    for n, row, column in np.ndindex(2, 3, 5):
        query = transform('query', input[n, :, row, column])
        score = np.array([np.exp(query @ transform('key', context[n, :, s, 0]) / np.sqrt(3)) for s in range(7)])
        expected = sum(score[s] / score.sum() * transform('value', context[n, :, s, 0]) for s in range(7))
        np.testing.assert_allclose(got[n, :, row, column], expected, rtol=1e-10)


def test_coarse_levels_add_to_their_projection():
    module = build(norm_cfg=None).aggregations[0]
    input = torch.randn(1, 8, 4, 4)
    nn.init.zeros_(module.conv2.conv.weight)
    nn.init.zeros_(module.conv2.conv.bias)
    torch.testing.assert_close(module(input), module.project(input))


def test_levels_and_context_flow_from_coarse_to_fine():
    torch.manual_seed(0)
    module = build(norm_cfg=None).eval()
    input = torch.randn(2, 6, 16, 8)
    before = module(input)
    assert [tuple(level.shape) for level in before] == [(2, 4, 2, 1), (2, 4, 4, 2), (2, 4, 8, 4), (2, 4, 16, 8)]
    with torch.no_grad():
        module.aggregations[1].conv2.conv.bias += 1  # a change at the second level reaches the finer ones through the context, not the coarser one
    after = module(input)
    changed = [not torch.equal(one, other) for one, other in zip(before, after, strict=True)]
    assert changed == [False, True, True, True]


def test_first_level_is_the_formula():
    torch.manual_seed(0)
    module = build(norm_cfg=None, num_levels=1).eval()
    input = torch.randn(1, 6, 8, 8)
    features = module.reduce(input)
    attended = module.attentions[0](features, pyramid_sampling(features, (1, 3, 6, 8)))
    expected = torch.relu(module.aggregations[0].conv(torch.cat([attended, features], 1)))
    torch.testing.assert_close(module(input)[0], expected)


def test_every_parameter_gets_a_gradient_from_the_finest_level_alone():
    torch.manual_seed(0)
    module = build()
    finest = module(torch.randn(2, 6, 16, 16))[-1]
    finest.backward(torch.randn_like(finest))
    assert [name for name, parameter in module.named_parameters() if parameter.grad is None] == []
    silent = [name for name, parameter in module.named_parameters() if not parameter.grad.any()]
    assert [name for name in silent if not name.endswith('key.bias')] == [], 'a bias on the keys cancels in the softmax'


@pytest.mark.parametrize('width', [18, 48])
def test_cost_is_about_one_3x3_convolution_on_the_finest_level(width):
    """Section 3.4: approximately 1.3 times; counted here for 512 x 512 with D_s = 512 and keys of 256, the classifiers of 150 classes included."""
    channels, in_channels = 512, 15 * width
    with torch.device('meta'):
        module = build(in_channels=in_channels, channels=channels, key_channels=256)
        classifiers = nn.ModuleList(nn.Sequential(nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, 150, 1)) for _ in range(4))
        plain = nn.Conv2d(channels, channels, 3, padding=1)
        input, features = torch.empty(1, in_channels, 128, 128), torch.empty(1, channels, 128, 128)
        with FlopCounterMode(display=False) as head:
            for classifier, level in zip(classifiers, module(input), strict=True):
                classifier(level)
        with FlopCounterMode(display=False) as convolution:
            plain(features)
    assert 1.1 <= head.get_total_flops() / convolution.get_total_flops() <= 1.5
