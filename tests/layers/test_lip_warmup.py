"""The hook of the LIP paper's Table 2 D, in training runs of mmengine."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from releases import needs_torch
from torch import nn

from mmpool_ext.layers import AveragePool2d, LIPPool2d
from mmpool_ext.layers.lip_warmup import AveragePoolingWarmupHook

AVERAGE, LIP = 'average', 'lip'


class PoolingModel(BaseModel):
    """Notes how its pooling pools in each iteration of training."""

    def __init__(self):
        super().__init__()
        self.pool, self.average = LIPPool2d(2), AveragePool2d(2, 3, 2, 1)
        self.seen = []

    def init_weights(self):
        torch.manual_seed(0)
        self.start = nn.init.normal_(self.pool.logit.conv.weight).clone()

    def forward(self, inputs, mode='tensor'):
        pooled = self.pool(inputs)
        self.seen.append(AVERAGE if torch.allclose(pooled, self.average(inputs), atol=1e-5) else LIP)
        return dict(loss=pooled.square().mean())


def train(work_dir, max_iters, run=None, **kwargs):
    """Train and return what the model saw, or what ``run`` makes of the runner."""
    runner = Runner(
        PoolingModel(),
        str(work_dir),
        train_dataloader=dict(
            dataset=[torch.randn(1, 2, 8, 8) for _ in range(8)], batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False)
        ),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=max_iters),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1)),
        custom_hooks=[dict(type='AveragePoolingWarmupHook', num_iters=3)],
        log_level='ERROR',
        **kwargs,
    )
    if run:
        return run(runner)
    model = runner.train()
    return model.seen, not torch.equal(model.pool.logit.conv.weight, model.start)


def test_averages_for_the_first_iterations_also_after_a_resume(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')  # mmengine 0.10.7 reads its checkpoints by pickle
    assert train(tmp_path, 3) == ([AVERAGE] * 3, False)
    assert train(tmp_path / 'whole', 5) == ([AVERAGE] * 3 + [LIP] * 2, True)
    for iteration, expected in ((1, [AVERAGE] * 2 + [LIP] * 2), (3, [LIP] * 2), (4, [LIP])):
        resumed = train(tmp_path / f'from{iteration}', 5, load_from=str(tmp_path / 'whole' / f'iter_{iteration}.pth'), resume=True)
        assert resumed[0] == expected


def test_a_training_shorter_than_the_warmup_leaves_a_model_that_pools_as_its_checkpoint(tmp_path):
    runner = train(tmp_path, 2, run=lambda runner: runner.train() and runner)
    model = runner.model
    model.seen.clear()
    model(torch.randn(1, 2, 8, 8))
    assert model.seen == [LIP]


@needs_torch(2, 6)
def test_a_compiled_model_warms_up_too(tmp_path):
    """The hooks are there at the first iteration, so what torch compiles for them is not used without."""
    torch._dynamo.reset()
    assert train(tmp_path, 5, cfg=dict(compile=dict(backend='eager'))) == ([AVERAGE] * 3 + [LIP] * 2, True)


def test_logit_gets_gradients_of_zero():
    pool = LIPPool2d(2)
    nn.init.normal_(pool.logit.conv.weight)
    AveragePoolingWarmupHook(1).before_train_iter(SimpleNamespace(iter=0, model=pool), 0)
    pool(torch.randn(1, 2, 8, 8)).square().sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in pool.parameters())


def test_model_without_lip():
    with pytest.raises(ValueError, match=r'AveragePoolingWarmupHook: the model must have a LIPPool2d, but got Linear without one'):
        AveragePoolingWarmupHook().before_train_iter(SimpleNamespace(iter=0, model=nn.Linear(1, 1)), 0)


def test_negative_number():
    with pytest.raises(ValueError, match=r'AveragePoolingWarmupHook: num_iters must be at least 0, but got -1'):
        AveragePoolingWarmupHook(-1)
