"""PPoolInceptionV2: the public layout of its weights, and where it pools."""

import pytest
import torch
from torch import nn

from mmpool_ext.backbones import PPoolInceptionV2
from mmpool_ext.layers import MaximumPool2d

# (name, weight) as the public bninception checkpoints have them; each is followed by a bias and a *_bn
PUBLIC = {
    'conv1_7x7_s2': (64, 3, 7, 7),
    'conv2_3x3_reduce': (64, 64, 1, 1),
    'conv2_3x3': (192, 64, 3, 3),
    'inception_3a_1x1': (64, 192, 1, 1),
    'inception_3a_double_3x3_2': (96, 96, 3, 3),
    'inception_3b_pool_proj': (64, 256, 1, 1),
    'inception_3c_3x3_reduce': (128, 320, 1, 1),
    'inception_3c_double_3x3_2': (96, 96, 3, 3),
    'inception_4a_1x1': (224, 576, 1, 1),
    'inception_4d_1x1': (96, 608, 1, 1),
    'inception_4e_3x3': (192, 128, 3, 3),
    'inception_5a_1x1': (352, 1056, 1, 1),
    'inception_5b_double_3x3_1': (224, 192, 3, 3),
    'inception_5b_pool_proj': (128, 1024, 1, 1),
}


def test_public_layout():
    """10,270,240 = the 11,295,240 parameters of the public network less its last_linear (1024 x 1000 + 1000)."""
    net = PPoolInceptionV2(None)
    assert sum(p.numel() for p in net.parameters()) == 11_295_240 - 1_025_000
    state = net.state_dict()
    for name, shape in PUBLIC.items():
        assert state[f'{name}.weight'].shape == shape
        assert state[f'{name}.bias'].shape == state[f'{name}_bn.running_var'].shape == shape[:1]
    assert 'inception_3c_1x1.weight' not in state
    assert 'inception_4e_pool_proj.weight' not in state


def test_every_down_sampling_and_every_pool_is_replaced():
    """P-pooling paper, Sec. 4.2: 5 strided convolutions, 4 strided pools, 8 pools of stride 1."""
    net = PPoolInceptionV2(dict(type='PolynomialPool2d'))
    pools = [name for name, module in net.named_children() if type(module).__name__ == 'PolynomialPool2d']
    strided = ['conv1_7x7_s2', *(f'inception_{block}_{conv}' for block in ('3c', '4e') for conv in ('3x3', 'double_3x3_2'))]
    assert [name for name in pools if name.endswith('_stride')] == [f'{name}_stride' for name in strided]
    assert len(pools) == 5 + 4 + 8
    assert not [module for module in net.modules() if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d))]
    assert all(net.get_submodule(name).stride == (1, 1) for name in strided)


def test_pools_of_the_original_are_max_and_average():
    net = PPoolInceptionV2(None)
    largest = [name for name, module in net.named_children() if isinstance(module, (nn.MaxPool2d, MaximumPool2d))]
    assert largest == ['pool1_3x3_s2', 'pool2_3x3_s2', 'inception_3c_pool', 'inception_4e_pool', 'inception_5b_pool']


def test_a_strided_convolution_is_pooled_after_its_relu():
    net = PPoolInceptionV2(dict(type='MaximumPool2d'), out_indices=(0,)).eval()
    input = torch.rand(1, 3, 33, 40)
    expected = nn.functional.max_pool2d(net.conv1_7x7_s2_bn(net.conv1_7x7_s2(input)).relu(), 2, ceil_mode=True)
    torch.testing.assert_close(net(input)[0], expected)


@pytest.mark.parametrize('size', [64, 65, 66, 67, 95])
def test_branches_of_a_block_agree_at_every_size(size):
    for pool in (None, dict(type='AveragePool2d')):
        outputs = PPoolInceptionV2(pool).eval()(torch.rand(1, 3, size, size))
        assert [output.shape[2] for output in outputs] == [-(-size // stride) for stride in (8, 16, 32)]


def test_odd_maps_are_repeated_at_their_edge():
    net = PPoolInceptionV2(dict(type='AveragePool2d'))
    torch.testing.assert_close(net.run('pool1_3x3_s2', torch.ones(1, 64, 5, 6)), torch.ones(1, 64, 3, 3))


def test_p_pooling_starts_at_what_was_there():
    """Four strided max poolings and that of 5b at the paper's 20; seven averages and five strides at 0.01."""
    net = PPoolInceptionV2(dict(type='PolynomialPool2d'))
    starts = {name: module.side_branch.initial_alpha for name, module in net.named_children() if type(module).__name__ == 'PolynomialPool2d'}
    largest = {'pool1_3x3_s2', 'pool2_3x3_s2', 'inception_3c_pool', 'inception_4e_pool', 'inception_5b_pool'}
    assert {name for name, start in starts.items() if start == 20} == largest
    assert {start for name, start in starts.items() if name not in largest} == {0.01}


def test_where_averages_were_a_pre_trained_network_starts_nearer_to_what_it_was():
    """With an order of 20 everywhere the maps are an average's times 3.8, and block after block makes it worse: up to 21 norms off, now 1.1."""
    torch.manual_seed(0)
    images = torch.nn.functional.interpolate(torch.randn(2, 3, 24, 24), size=(96, 96), mode='bicubic')
    original = PPoolInceptionV2(None)
    with torch.no_grad():
        for _ in range(20):  # statistics
            original(images)
        expected = original.eval()(images)
        distances = {}
        for start, pool in ((20, dict(type='PolynomialPool2d', initial_alpha=20.0)), ('nearest', dict(type='PolynomialPool2d'))):
            net = PPoolInceptionV2(pool)
            net.load_state_dict(original.state_dict(), strict=False)
            distances[start] = [((own - theirs).norm() / theirs.norm()).item() for own, theirs in zip(net.eval()(images), expected, strict=True)]
            print(start, [f'{distance:.2f}' for distance in distances[start]])
    assert max(distances['nearest']) < 1.5
    assert max(distances[20]) > 5
