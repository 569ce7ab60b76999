"""PPoolResNet: torchvision's weights and the places of its pools."""

import pytest
import torch
from torch.nn import functional as F

torchvision = pytest.importorskip('torchvision')
PPoolResNet = pytest.importorskip('mmpool_ext.backbones.ppool_resnet').PPoolResNet


def test_without_surgery_it_is_torchvision():
    original, net = torchvision.models.resnet50(weights=None).eval(), PPoolResNet(None).eval()
    report = net.load_state_dict(original.state_dict(), strict=False)
    assert report.unexpected_keys == ['fc.weight', 'fc.bias']
    assert not report.missing_keys
    input = torch.rand(1, 3, 65, 64)
    x = original.maxpool(original.relu(original.bn1(original.conv1(input))))
    for stage, output in zip((original.layer1, original.layer2, original.layer3, original.layer4), net(input), strict=True):
        x = stage(x)
        torch.testing.assert_close(output, x)


def test_pools_follow_conv1_and_the_first_three_stages():
    """P-pooling paper, Sec. 4.1: pool1 unchanged, every stride removed."""
    original, net = torchvision.models.resnet18(weights=None).eval(), PPoolResNet(dict(type='AveragePool2d'), depth=18).eval()
    net.load_state_dict(original.state_dict(), strict=False)
    for module in original.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.stride = (1, 1)
    input = torch.rand(1, 3, 64, 64)
    x = original.maxpool(F.avg_pool2d(original.relu(original.bn1(original.conv1(input))), 2))
    expected = [original.layer1(x)]
    for stage in (original.layer2, original.layer3, original.layer4):
        expected.append(stage(F.avg_pool2d(expected[-1], 2)))
    torch.testing.assert_close(net(input), tuple(expected))


def test_odd_sizes_are_those_of_the_original():
    sizes = [[output.shape for output in PPoolResNet(pool, depth=18)(torch.rand(2, 3, 69, 83))] for pool in (None, dict(type='MaximumPool2d'))]
    assert sizes[0] == sizes[1]


def test_bad_depth():
    with pytest.raises(ValueError, match=r'PPoolResNet: depth must be one of \(18, 34, 50, 101, 152\), but got 20'):
        PPoolResNet(None, depth=20)
