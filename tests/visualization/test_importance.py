"""Importance maps are the logits of the LIPs, and their entropy tells whether a LIP learned."""

import math

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mmpool_ext import LIPPool2d, LIPResNet
from mmpool_ext.visualization.importance import draw_importance, watch_importance, window_entropy


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


def test_entropy_of_a_window_by_hand():
    """Weights of 1/4 and 3/4; equal ones; one that has it all; and a window of which padding is a part."""
    logit = torch.tensor([[[[0.0, math.log(3), 5.0, 5.0, 60.0, 0.0]]]])
    by_hand = (0.25 * math.log(4) + 0.75 * math.log(4 / 3)) / math.log(2)
    entropy = window_entropy(LIPPool2d(1, (1, 2), (1, 2), 0), logit)
    torch.testing.assert_close(entropy, torch.tensor([[[[by_hand, 1.0, 0.0]]]]))
    padded = window_entropy(LIPPool2d(1, (1, 3), (1, 3), (0, 1)), logit)
    assert padded[0, 0, 0, 0].item() == pytest.approx(by_hand, abs=1e-6)  # two pixels and one of padding
    assert window_entropy(LIPPool2d(1, 1, 1, 0), logit).eq(1).all()


class Brightest(BaseModel):
    """Must keep the one bright pixel of each window, which an average cannot."""

    def __init__(self):
        super().__init__()
        self.pool = LIPPool2d(1, 2, 2, 0, logit=dict(type='ProjectionLogit', norm_cfg=None))

    def forward(self, inputs, mode='loss'):
        return dict(loss=(self.pool(inputs) - nn.functional.max_pool2d(inputs, 2)).square().mean())


def test_the_hook_logs_one_at_the_start_and_less_when_the_lip_has_learned(tmp_path):
    torch.manual_seed(0)
    loader = dict(dataset=[torch.randn(1, 16, 16) for _ in range(60)], batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False))
    loader['collate_fn'] = lambda batch: dict(inputs=torch.stack(batch))
    runner = Runner(
        model=Brightest(),
        work_dir=str(tmp_path),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=False, max_iters=60),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.3)),
        custom_hooks=[dict(type='LIPEntropyHook', interval=1, picture_interval=30)],
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
        experiment_name='entropy',
    )
    runner.train()
    history, _ = runner.message_hub.get_scalar('train/lip_entropy/pool').data
    print(history[0], history[-1])
    assert len(history) == 60
    assert history[0] == pytest.approx(1, abs=1e-6)
    assert history[-1] < 0.8
    assert {path.name for path in tmp_path.rglob('vis_image/*.png')} == {'lip_importance_30.png', 'lip_importance_60.png'}
    assert not runner.model.pool.logit._forward_hooks
