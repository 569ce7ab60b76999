"""Outputs are collected by name, detached, the last run's, and no hook stays."""

import pytest
import torch
from torch import nn

from mmpool_ext.visualization.watch import first_image, watch


def test_collects_the_last_run_and_leaves_no_hook():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    with watch({'second': net[1], 'first': net[0]}) as outputs:
        net(torch.rand(4, 2))
        result = net(torch.rand(5, 2))
    net(torch.rand(6, 2))
    assert list(outputs) == ['first', 'second']  # as they ran
    assert outputs['first'].shape == (5, 3)
    assert torch.equal(outputs['second'], result)
    assert not outputs['first'].requires_grad
    assert not net[0]._forward_hooks


class Two(nn.Module):
    def forward(self, input):
        return [input, 2 * input]


def test_lists_of_tensors_are_detached_one_by_one():
    net = Two()
    with watch({'two': net}) as outputs:
        net(torch.ones(1, requires_grad=True))
    assert [part.item() for part in outputs['two']] == [1, 2]
    assert not any(part.requires_grad for part in outputs['two'])


@pytest.mark.parametrize('channels', [1, 3, 5])
def test_the_first_image_is_rgb_of_bytes(channels):
    inputs = torch.zeros(2, channels, 4, 5)
    inputs[0, 0, 1, 2] = 7.5  # blue, as OpenMMLab reads images
    for batch in (inputs, list(inputs)):
        image = first_image(dict(inputs=batch))
        assert image.shape == (4, 5, 3)
        assert image[1, 2].tolist() == ([0, 0, 255] if channels == 3 else [255] * 3)
    kept = torch.full((1, 3, 2, 2), 9, dtype=torch.uint8)
    assert (first_image(dict(inputs=kept)) == 9).all()
