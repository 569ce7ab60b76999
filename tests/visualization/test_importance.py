"""Importance maps are the logits of the LIPs."""

import pytest
import torch
from torch import nn

from mmpool_ext import LIPResNet
from mmpool_ext.visualization.importance import draw_importance, watch_importance


def test_watch_collects_every_logit_and_leaves_nothing_behind():
    network = LIPResNet(14, base_channels=8).eval()
    nn.init.normal_(network.stem_pool.logit.conv.weight)
    features = []
    network.stem_pool.register_forward_pre_hook(lambda module, args: features.append(args[0]))
    with watch_importance(network) as maps:
        network(torch.rand(2, 3, 64, 96))
    shapes = {name: tuple(logit.shape[1:]) for name, logit in maps.items()}
    expected = {'stem_pool': (8, 32, 48)}
    for stage, (residual, shortcut, size) in enumerate([(16, 32, (16, 24)), (32, 64, (8, 12)), (64, 128, (4, 6))], 2):
        expected |= {f'layer{stage}.0.pool2': (residual, *size), f'layer{stage}.0.downsample_pool': (shortcut, *size)}
    assert shapes == expected
    torch.testing.assert_close(maps['stem_pool'], network.stem_pool.logit(features[0]).detach())
    assert maps['stem_pool'].std() > 1
    assert not network.stem_pool.logit._forward_hooks


def test_nothing_to_watch():
    with (
        pytest.raises(ValueError, match='watch_importance: model must have a LIPPool2d, but got Identity without one'),
        watch_importance(nn.Identity()),
    ):
        pass


def test_draws_the_channels_that_vary_most(tmp_path):
    maps = dict(a=torch.arange(7.0)[:, None, None] * torch.rand(4, 4), b=torch.rand(2, 2, 2))
    figure = draw_importance(torch.zeros(8, 8, 3).byte(), maps, num_channels=3)
    figure.savefig(tmp_path / 'x.png')
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles[0] == 'mean of 7 channels'
    assert titles[1] == 'channel 6'
    assert len(titles) == 4 + 3
