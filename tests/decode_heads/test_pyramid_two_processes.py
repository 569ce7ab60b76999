"""Every setting of Table 2a in two gloo processes, without find_unused_parameters."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmseg')

# One process sees labels, the other only void. DDP complains in the second step of a parameter that the first did not use.
SCRIPT = """
import sys
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
import test_pyramid_representation_head as case

rank, store = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)


def train(model):
    model = MMDistributedDataParallel(model, broadcast_buffers=False)
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    label = case.random_labels(2, 32, 32) if rank == 0 else torch.full((2, 32, 32), case.VOID)
    for step in range(2):
        model.train_step(dict(inputs=torch.randn(2, 3, 32, 32), data_samples=case.samples_of(label)), optimizer)
    mine = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    theirs = mine.clone()
    torch.distributed.broadcast(theirs, 0)
    assert torch.equal(mine, theirs) and mine.isfinite().all()


for setting, arguments in case.SETTINGS.items():
    train(case.build_segmentor(**arguments))
    print('trained', setting, flush=True)
planted = case.build_segmentor()
planted.unused = torch.nn.Parameter(torch.ones(1))
train(planted)
"""


def test_every_setting_trains_and_a_planted_unused_parameter_is_found(tmp_path):
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    options = dict(env=dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=paths), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    runs = [subprocess.Popen([sys.executable, '-c', SCRIPT, str(rank), str(tmp_path / 'store')], **options) for rank in range(2)]
    for run in runs:
        said = run.communicate(timeout=300)[0]
        assert [line for line in said.splitlines() if line.startswith('trained')] == [f'trained {setting}' for setting in 'ABCDEFGHI'], said
        assert run.returncode != 0
        assert 'Expected to have finished reduction in the prior iteration' in said
