"""PPoolXception: timm's weights, and what stride 16 and 8 change."""

import pytest
import torch
from torch import nn

timm = pytest.importorskip('timm')
PPoolXception = pytest.importorskip('mmpool_ext.backbones.ppool_xception').PPoolXception
POOL = dict(type='PolynomialPool2d')


@pytest.mark.parametrize('pool', [POOL, None], ids=['pool', 'original'])
def test_public_layout(pool):
    report = PPoolXception(pool).load_state_dict(timm.create_model('legacy_xception').state_dict(), strict=False)
    assert report.unexpected_keys == ['fc.weight', 'fc.bias']
    assert all('side_branch' in key for key in report.missing_keys)
    assert bool(report.missing_keys) == (pool is not None)


def test_without_surgery_only_the_padding_of_the_stem_differs():
    original, net = timm.create_model('legacy_xception').eval(), PPoolXception(None, output_stride=32).eval()
    net.load_state_dict(original.state_dict(), strict=False)
    original.conv1.padding = original.conv2.padding = (1, 1)
    input = torch.rand(1, 3, 64, 96)
    torch.testing.assert_close(net(input)[0], original.forward_features(input))


def dilations(net, name):
    return {module.dilation[0] for module in net.get_submodule(name).modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)}


@pytest.mark.parametrize(('output_stride', 'middle', 'late'), [(32, 1, (1, 1, 1)), (16, 1, (2, 4, 8)), (8, 2, (4, 8, 16))])
def test_strides_become_dilations(output_stride, middle, late):
    """The authors' multi-grid (1, 2, 4) on block 12, conv3 and conv4."""
    net = PPoolXception(dict(type='MaximumPool2d'), output_stride=output_stride)
    assert net(torch.rand(2, 3, 64, 96))[0].shape == (2, 2048, 64 // output_stride, 96 // output_stride)
    assert dilations(net, 'block3') == {1}
    assert dilations(net, 'block4') == dilations(net, 'block11') == {middle}
    assert tuple(dilations(net, name).pop() for name in ('block12', 'conv3', 'conv4')) == late


@pytest.mark.parametrize(('pool_skips', 'count'), [(True, 8), (False, 5)])
def test_shortcuts_may_keep_their_strided_convolution(pool_skips, count):
    """The stem and blocks 1, 2, 3, 12; at stride 16 the shortcuts of blocks 1, 2 and 3. A pool whose stride is removed stays."""
    net = PPoolXception(POOL, pool_skips=pool_skips)
    assert sum(type(module).__name__ == 'PolynomialPool2d' for module in net.modules()) == count
    assert net.block1.skip.stride == ((1, 1) if pool_skips else (2, 2))
    assert type(net.block12.rep[-1].pool).__name__ == 'PolynomialPool2d'
    assert net.block12.rep[-1].pool.stride == (1, 1)


def test_the_stem_is_pooled_after_its_norm_and_relu():
    """The authors' code: 3x3 with stride 2, where conv1's own output was pooled 2x2 here."""
    net = PPoolXception(dict(type='MaximumPool2d'), output_stride=32, out_indices=(0,)).eval()
    nn.init.normal_(net.bn1.weight)  # negative factors turn the maximum around
    input = torch.rand(1, 3, 33, 40)
    stem = nn.functional.max_pool2d(net.bn1(nn.functional.conv2d(input, net.conv1.weight, None, 1, 1)).relu(), 3, 2, 1)
    torch.testing.assert_close(net(input)[0], net.bn2(net.conv2(stem)).relu())
    starts = {name: m.side_branch.initial_alpha for name, m in PPoolXception(POOL).named_modules() if type(m).__name__ == 'PolynomialPool2d'}
    assert {name for name, start in starts.items() if start != 20} == {f'block{index}.skip.replacement.pool' for index in (1, 2, 3)}


def test_bad_stride():
    with pytest.raises(ValueError, match=r'PPoolXception: output_stride must be one of \[32, 16, 8\], but got 4'):
        PPoolXception(POOL, output_stride=4)
