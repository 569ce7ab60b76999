"""DUpsampling in two gloo processes, without find_unused_parameters."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmseg')
pytest.importorskip('timm')

# DDP complains in the second step of a parameter that the first did not use. The second process sees void alone.
SCRIPT = """
import sys
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
import test_dupsampling_head as case

init_default_scope('mmseg')
rank, store = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)


def train(model):
    wrapped = MMDistributedDataParallel(model)
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    inputs, data_samples = case.batch((65, 90), 2)
    if rank == 1:
        inputs = inputs.flip(0)
        for sample in data_samples:
            sample.gt_sem_seg.data.fill_(255)
    for step in range(3):
        logged = wrapped.train_step(dict(inputs=inputs, data_samples=data_samples), optimizer)
    mine = torch.cat([value.detach().double().flatten() for value in model.parameters()])
    theirs = mine.clone()
    torch.distributed.broadcast(theirs, 0)
    assert torch.equal(mine, theirs) and mine.isfinite().all()
    return float(model.decode_head.upsample.temperature.detach())


upsample = dict(in_channels=7, scale_factor=32, init='random')
assert train(case.segmentor()) != 1
print('trained frozen W', flush=True)
train(case.segmentor(upsample=dict(upsample, trainable=True)))
print('trained learnt W', flush=True)
assert train(case.segmentor(objective='regression')) == 1
print('trained regression', flush=True)
planted = case.segmentor()
planted.unused = torch.nn.Parameter(torch.ones(1))
train(planted)
"""


def test_trains_and_a_planted_unused_parameter_is_found(tmp_path):
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    options = dict(env=dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=paths), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    runs = [subprocess.Popen([sys.executable, '-c', SCRIPT, str(rank), str(tmp_path / 'store')], **options) for rank in range(2)]
    for run in runs:
        said = run.communicate(timeout=300)[0]
        trained = [line for line in said.splitlines() if line.startswith('trained')]
        assert trained == ['trained frozen W', 'trained learnt W', 'trained regression'], said[-3000:]
        assert run.returncode != 0
        assert 'Expected to have finished reduction in the prior iteration' in said
