"""What setup.py decides, without compiling."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
SHOW = (
    'import setuptools; setuptools.setup = lambda **arguments: print([module.sources for module in arguments.get("ext_modules", [])]); '
    'import runpy; runpy.run_path("setup.py")'
)


def setup(path='', **environment):
    """Run setup.py with setup() replaced by a print of the extensions' sources."""
    environment = {'PATH': '/usr/bin:/bin', 'PYTHONPATH': str(path), **environment}
    return subprocess.run([sys.executable, '-c', SHOW], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_ops_are_built_by_default():
    result = setup()
    assert 'csrc/cpu/lip_pool.cpp' in result.stdout
    assert 'csrc/ops.cpp' in result.stdout


def test_switch_builds_without_ops():
    assert setup(MMPOOL_EXT_WITH_OPS='0').stdout == '[]\n'


@pytest.mark.parametrize(
    ('environment', 'message'),
    [
        (
            {'CXX': 'no-such-compiler -O2'},
            "building the ops needs a C++ compiler, but 'no-such-compiler' was not found: install g++ or set CXX, or set",
        ),
        ({'FORCE_CUDA': '1', 'CUDA_HOME': '/nowhere'}, 'FORCE_CUDA=1 needs'),
    ],
)
def test_what_cannot_be_built_stops_with_one_line(environment, message):
    if 'CUDA_HOME' in environment and torch.version.cuda is None:
        message = 'FORCE_CUDA=1 needs a CUDA build of torch'
    result = setup(**environment)
    assert result.returncode == 1
    (line,) = (line for line in result.stderr.splitlines() if 'torch/utils/cpp_extension.py' not in line)  # torch logs that there is no GPU
    assert line.startswith(f'mmpool_ext: {message}')


def test_no_torch_stops_with_one_line(tmp_path):
    (tmp_path / 'torch.py').write_text('raise ImportError("No module named torch")')
    result = setup(tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith(
        'mmpool_ext: building the ops needs torch (No module named torch): install torch first and use --no-build-isolation'
    )
    assert setup(tmp_path, MMPOOL_EXT_WITH_OPS='0').stdout == '[]\n'
