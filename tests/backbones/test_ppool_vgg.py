"""PPoolVGG: torchvision's weights, the variants of the paper."""

import pytest
import torch
from torch import nn

from mmpool_ext.layers import PolynomialPool2d

torchvision = pytest.importorskip('torchvision')
PPoolVGG = pytest.importorskip('mmpool_ext.backbones.ppool_vgg').PPoolVGG
POOL = dict(type='PolynomialPool2d')


@pytest.fixture(scope='module')
def original():
    return torchvision.models.vgg16(weights=None).eval()


def test_the_classifier_becomes_convolutions(original):
    net = PPoolVGG(dict(type='MaximumPool2d'), output_stride=32).eval()
    report = net.load_state_dict(original.state_dict())
    assert not report.missing_keys
    assert not report.unexpected_keys
    input = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        expected = original.classifier[:6](original.features(input).flatten(1))
        torch.testing.assert_close(net(input)[0][0, :, 3, 3], expected[0], atol=1e-5, rtol=1e-4)


def test_vgg16_20m_takes_an_even_part_of_the_classifier(original):
    state = {'backbone.' + key: value for key, value in original.state_dict().items()}  # as a segmentor's checkpoint holds it
    net = nn.ModuleDict(dict(backbone=PPoolVGG(POOL, fc_channels=1024, fc6_kernel_size=3, fc6_dilation=6)))
    report = net.load_state_dict(state, strict=False)
    assert not report.unexpected_keys
    assert all('side_branch' in key for key in report.missing_keys)
    fc6 = original.classifier[0].weight.view(4096, 512, 7, 7)
    torch.testing.assert_close(net['backbone'].fc6.weight, fc6[::4, :, ::3, ::3])
    torch.testing.assert_close(net['backbone'].fc6.bias, original.classifier[0].bias[::4])
    torch.testing.assert_close(net['backbone'].fc7.weight[:, :, 0, 0], original.classifier[3].weight[::4, ::4])


def test_a_checkpoint_of_its_own_loads_whole():
    net, other = (PPoolVGG(POOL, fc_channels=8) for _ in range(2))
    assert not any(other.load_state_dict(net.state_dict()))


def test_large_fov_has_twenty_million_parameters():
    """P-pooling paper, Table 4 'VGG16-20M': 14.7M of the trunk, 512 x 1024 x 9 and 1024 x 1024 weights."""
    net = PPoolVGG(dict(type='MaximumPool2d'), fc_channels=1024, fc6_kernel_size=3, fc6_dilation=6)
    assert sum(p.numel() for p in net.parameters()) == 14_714_688 + 512 * 1024 * 9 + 1024 + 1024 * 1024 + 1024
    assert net.fc6.dilation == net.fc6.padding == (6, 6)


def test_side_branches_hold_12864_parameters_with_a_3x3_pool5():
    net = PPoolVGG(POOL, out_indices=(4,))
    assert sum(p.numel() for key, p in net.named_parameters() if 'side_branch' in key) == 12864


def test_one_pool_at_a_time():
    """P-pooling paper, Table 6."""
    for stage, index in enumerate((4, 9, 16, 23, 30)):
        net = PPoolVGG(POOL, pool_stages=(stage,), out_indices=(4,))
        found = [name for name, module in net.features.named_children() if isinstance(module, (PolynomialPool2d, nn.MaxPool2d))]
        assert found == ['4', '9', '16', '23', '30']
        assert [name for name in found if isinstance(net.features[int(name)], PolynomialPool2d)] == [str(index)]


def test_strided_c_strides_the_convolution_before_each_pool():
    net = PPoolVGG(None, out_indices=(4,))
    strides = {name: module.stride for name, module in net.features.named_children() if getattr(module, 'stride', (1, 1)) != (1, 1)}
    assert strides == dict.fromkeys(('2', '7', '14', '21'), (2, 2))  # conv1_2, conv2_2, conv3_3, conv4_3
    assert not [module for module in net.modules() if isinstance(module, nn.MaxPool2d)]


def test_all_c_is_a_new_3x3_convolution_a_pool():
    net = PPoolVGG(dict(type='ConvPool2d', kernel_size=3, padding=1), out_indices=(4,))
    assert net(torch.rand(1, 3, 64, 64))[0].shape == (1, 512, 4, 4)
    assert net.features[4].conv.stride == (2, 2)
    assert net.features[30].conv.stride == (1, 1)


def test_stride_8_dilates_conv5():
    net = PPoolVGG(POOL, output_stride=8, out_indices=(3, 4))
    assert [output.shape[2:] for output in net(torch.rand(1, 3, 64, 64))] == [(8, 8), (8, 8)]
    assert [net.features[i].dilation for i in (21, 24, 26, 28)] == [(1, 1), (2, 2), (2, 2), (2, 2)]


def test_bad_arguments():
    with pytest.raises(ValueError, match=r'PPoolVGG: depth must be one of \[11, 13, 16, 19\], but got 12'):
        PPoolVGG(POOL, depth=12)
    with pytest.raises(ValueError, match=r'PPoolVGG: output_stride must be one of \[8, 16, 32\], but got 4'):
        PPoolVGG(POOL, output_stride=4)
    with pytest.raises(ValueError, match=r'PPoolVGG: pool_stages must be among 0 to 4, but got \(5,\)'):
        PPoolVGG(POOL, pool_stages=(5,))


def test_p_pooling_starts_within_five_percent_of_max_pooling():
    """What configs/ppool/README.md says of the start: 1% after pool1 to 5% after pool5."""
    torch.manual_seed(0)
    images = nn.functional.interpolate(torch.randn(1, 3, 24, 24), size=(96, 96), mode='bicubic')
    largest, net = (PPoolVGG(dict(type=kind), out_indices=(0, 1, 2, 3, 4)).eval() for kind in ('MaximumPool2d', 'PolynomialPool2d'))
    net.load_state_dict(largest.state_dict(), strict=False)
    with torch.no_grad():
        distances = [((own - theirs).norm() / theirs.norm()).item() for own, theirs in zip(net(images), largest(images), strict=True)]
    print([f'{distance:.3f}' for distance in distances])
    assert distances[0] < 0.02
    assert max(distances) < 0.08
