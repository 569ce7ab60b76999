"""Outputs are collected by name, detached, the last run's, and no hook stays."""

import torch
from torch import nn

from mmpool_ext.visualization.watch import watch


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
