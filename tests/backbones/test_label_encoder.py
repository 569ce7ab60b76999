"""The encoder of the label auto-encoder."""

import pytest
import torch

from mmpool_ext.backbones import LabelEncoder


@pytest.mark.parametrize(('strides', 'size'), [((2, 2, 2, 2, 2), (17, 12)), ((2, 2, 2, 2, 1), (33, 23))])
def test_stride_and_channels(strides, size):
    encoder = LabelEncoder(21, strides=strides)
    (output,) = encoder(torch.rand(2, 21, 513, 353))
    assert output.shape == (2, 512, *size)
    output.square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    kernels = [m.kernel_size for m in encoder.modules() if isinstance(m, torch.nn.Conv2d)]
    assert kernels == [(3, 3)] * 5


def test_lengths_must_agree():
    with pytest.raises(ValueError, match='LabelEncoder: strides must be as many as channels, but got 2 and 5'):
        LabelEncoder(21, strides=(2, 2))
