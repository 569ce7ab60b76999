"""CONTRIBUTING.md: its example is a pooling that works wherever ours do, and its hooks use the versions that `make lint` uses."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.registry import MODELS
from torch.nn import functional as F

import mmpool_ext

ROOT = Path(__file__).parents[1]
NAME = 'MixedPool2d'


@pytest.fixture
def pooling():
    """The class of the example, registered for one test."""
    code = re.search(r'```python\n(# mixed_pool.py\n.*?)```', (ROOT / 'CONTRIBUTING.md').read_text(), re.DOTALL)[1]
    names = {}
    exec(code, names)
    yield names[NAME]
    del MODELS._module_dict[NAME]


def check_training(network, size):
    assert sum(type(module).__name__ == NAME for module in network.modules()) > 0
    outputs = network(torch.rand(2, 3, size, size))
    torch.autograd.backward(outputs, [torch.randn_like(output) for output in outputs])
    for module in network.modules():
        if type(module).__name__ == NAME:
            assert module.mix.grad.any()


def test_example_starts_halfway_between_average_and_max(pooling):
    assert issubclass(pooling, mmpool_ext.WindowPool2d)
    input = torch.randn(1, 2, 7, 6)
    expected = (F.avg_pool2d(input, 3, 2, 1, count_include_pad=False) + F.max_pool2d(input, 3, 2, 1)) / 2
    torch.testing.assert_close(pooling(2, 3, 2, 1)(input), expected)


def test_example_works_in_lip_resnet(pooling):
    network = MODELS.build(dict(type='LIPResNet', depth=14, base_channels=4, zero_init_residual=False, pool=dict(type=NAME)))
    assert sum(isinstance(module, pooling) for module in network.modules()) == 7  # the stem, and both branches of three stages
    check_training(network, 64)


def test_example_works_in_repooled(pooling):
    pytest.importorskip('mmdet')
    network = MODELS.build(dict(type='Repooled', backbone='mmdet.ResNet', depth=18, pool=dict(type=NAME)))
    assert isinstance(network.maxpool.pool, pooling)
    check_training(network, 64)


def test_example_without_dilation_refuses_it(pooling):
    with pytest.raises(TypeError, match='dilation'):
        MODELS.build(dict(type='LIPResNet', depth=14, base_channels=4, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), pool=dict(type=NAME)))


def test_hooks_have_the_versions_of_make_lint():
    pinned = dict(
        line.split('==') for path in ('dev', 'shared') for line in (ROOT / f'requirements/{path}.txt').read_text().split('\n') if '==' in line
    )
    hooks = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())['repos'][0]['hooks']
    used = {tuple(need.split('==')) for hook in hooks for need in hook['additional_dependencies']}
    assert len(used & set(pinned.items())) >= 3
    assert {(name, version) for name, version in used if pinned.get(name, version) != version} == set()


def test_workflows_run_make_targets_that_exist():
    targets = set(re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.M))
    jobs = yaml.safe_load((ROOT / '.github/workflows/ci.yml').read_text())['jobs']
    commands = [step['run'] for job in jobs.values() for step in job['steps'] if 'run' in step]
    assert len(commands) >= 3
    for command in commands:
        make, *called = re.sub(r' [A-Z]+=[\w.]*(\$\{\{ [\w.]+ \}\})?', '', command).split()  # without variables, such as TORCH=2.1.2
        assert make == 'make'
        assert set(called) <= targets
    assert set(re.findall(r'^make ([a-z-]+)', (ROOT / 'CONTRIBUTING.md').read_text(), re.M)) <= targets


def test_package_says_that_it_is_typed_and_who_made_it():
    tomllib = pytest.importorskip('tomllib')  # Python 3.11
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    assert {'authors', 'classifiers', 'keywords', 'urls'} <= project.keys()
    assert (ROOT / 'mmpool_ext/py.typed').is_file()
