"""Alpha maps are those of the pools, drawn and logged."""

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from PIL import Image
from releases import needs_torch
from torch import nn

import mmpool_ext  # noqa: F401 registers the hook
from mmpool_ext.layers import PolynomialPool2d
from mmpool_ext.visualization.alpha import draw_alpha, watch_alpha

compiles = needs_torch(2, 6)


class Net(BaseModel):
    def __init__(self):
        super().__init__()
        self.first, self.second = PolynomialPool2d(3), PolynomialPool2d(3, initial_alpha=3)

    def forward(self, inputs, mode='loss'):
        return dict(loss=self.second(self.first(inputs)).square().mean())


def test_watch_collects_every_map_and_leaves_nothing_behind():
    net = Net()
    with watch_alpha(net) as maps:
        net(torch.rand(2, 3, 16, 16))
    assert {name: tuple(alpha.shape) for name, alpha in maps.items()} == {'first': (2, 3, 8, 8), 'second': (2, 3, 4, 4)}
    torch.testing.assert_close(maps['second'].mean(), torch.tensor(3.0), atol=0.5, rtol=0)
    assert not net.first.side_branch._forward_hooks


def test_nothing_to_watch():
    with pytest.raises(ValueError, match='watch_alpha: model must have a PolynomialPool2d, but got Identity without one'), watch_alpha(nn.Identity()):
        pass


@pytest.mark.parametrize('compiled', [False, pytest.param(True, marks=compiles)], ids=['eager', 'compiled'])
def test_the_hook_logs_means_and_draws(tmp_path, compiled):
    loader = dict(dataset=[torch.rand(3, 16, 16) for _ in range(4)], batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False))
    loader['collate_fn'] = lambda batch: dict(inputs=torch.stack(batch))
    runner = Runner(
        model=Net(),
        work_dir=str(tmp_path),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=False, max_iters=4),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
        custom_hooks=[dict(type='MeanAlphaHook', interval=2, picture_interval=4)],
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
        experiment_name=f'alpha {compiled}',
        cfg=dict(compile=dict(backend='aot_eager')) if compiled else None,
    )
    runner.train()
    history, _ = runner.message_hub.get_scalar('train/alpha/second').data
    assert len(history) == 2
    assert history[0] == pytest.approx(3, abs=0.5)
    (picture,) = tmp_path.rglob('vis_image/*.png')
    assert picture.name == 'alpha_4.png'
    assert min(Image.open(picture).size) > 300
    assert not runner.model.first.side_branch._forward_hooks


def test_draws_a_row_a_layer(tmp_path):
    figure = draw_alpha(torch.zeros(8, 8, 3).byte(), dict(a=torch.rand(7, 4, 4), b=torch.rand(2, 2, 2)), num_channels=3)
    figure.savefig(tmp_path / 'x.png')
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert len(titles) == 3 + 2
