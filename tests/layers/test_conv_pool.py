"""ConvPool2d: All-C's new convolution."""

import torch
from torch.nn import functional as F

from mmpool_ext.layers import ConvPool2d


def test_is_a_convolution_with_a_relu():
    torch.manual_seed(0)
    input = torch.randn(2, 3, 7, 5)
    pool = ConvPool2d(3, 3, 2, 1)
    torch.testing.assert_close(pool(input), F.relu(F.conv2d(input, pool.conv.weight, pool.conv.bias, 2, 1)))
    # ceil_mode adds zeros at the end only
    pool = ConvPool2d(3, 2, 2, 0, ceil_mode=True)
    torch.testing.assert_close(pool(input), F.relu(F.conv2d(F.pad(input, (0, 1, 0, 1)), pool.conv.weight, pool.conv.bias, 2)))


def test_starts_as_he_et_al_prescribe():
    torch.manual_seed(0)
    pool = ConvPool2d(32, 3, 2, 1)
    assert abs(pool.conv.weight.std().item() - (2 / (32 * 9)) ** 0.5) < 0.005
    assert not pool.conv.bias.any()
