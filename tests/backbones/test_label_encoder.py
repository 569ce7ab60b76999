"""The encoder of the label auto-encoder."""

import pytest
import torch

from mmpool_ext.backbones import LabelEncoder


@pytest.mark.parametrize(('strides', 'size'), [((2, 2, 2, 2, 2), (17, 12)), ((2, 2, 2, 2, 1), (33, 23))])
def test_stride_and_channels(strides, size):
    encoder = LabelEncoder(21, strides=strides)
    (output,) = encoder(torch.rand(2, 21, 513, 353))
    assert output.shape == (2, 512, *size)
    assert (encoder.out_channels, encoder.out_strides) == ((512,), (32 if strides[-1] == 2 else 16,))
    output.square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    kernels = [m.kernel_size for m in encoder.modules() if isinstance(m, torch.nn.Conv2d)]
    assert kernels == [(3, 3)] * 5


def test_lengths_must_agree():
    with pytest.raises(ValueError, match='LabelEncoder: strides must be as many as channels, but got 2 and 5'):
        LabelEncoder(21, strides=(2, 2))


def test_starts_as_the_paper_prescribes():
    """New layers: a normal distribution of mean 0 and variance 0.01 (Section 4)."""
    torch.manual_seed(0)
    encoder = LabelEncoder(21)
    encoder.init_weights()
    for layer in encoder.layers:
        assert layer.conv.weight.std().item() == pytest.approx(0.1, rel=0.03)
        assert abs(layer.conv.weight.mean().item()) < 0.002
