"""What setup.py decides, without compiling."""

import ast
import os
import shutil
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


def setup(path='', before='', **environment):
    """Run setup.py, after the code ``before``, with setup() replaced by a print of the extensions' sources."""
    environment = {'PATH': '/usr/bin:/bin', 'PYTHONPATH': str(path), **environment}
    return subprocess.run([sys.executable, '-c', before + SHOW], cwd=ROOT, env=environment, capture_output=True, text=True)


def said(result):
    """Lines of the error output without torch's own, which tell that there is no GPU or that setuptools is old."""
    return [line for line in result.stderr.splitlines() if not any(part in line for part in ('cpp_extension.py', 'pkg_resources', 'No CUDA runtime'))]


def test_ops_are_built_by_default():
    result = setup()
    assert 'csrc/cpu/lip_pool.cpp' in result.stdout
    assert 'csrc/ops.cpp' in result.stdout


@pytest.mark.parametrize(('debug', 'flags'), [('0', ['-O3', '-g0']), ('1', ['-O0', '-g'])])
def test_debug_build_is_not_optimised(debug, flags):
    show = SHOW.replace('module.sources', "(module.extra_compile_args['cxx'] if 'cxx' in module.extra_compile_args else module.extra_compile_args)")
    environment = {'PATH': '/usr/bin:/bin', 'MMPOOL_EXT_DEBUG': debug}
    result = subprocess.run([sys.executable, '-c', show], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ast.literal_eval(result.stdout)[0][:2] == flags


def test_a_forced_cuda_build_names_its_cuda():
    show = SHOW.replace('[module.sources for module in arguments.get("ext_modules", [])]', 'arguments.get("options")')
    environment = {'PATH': os.environ['PATH'], 'FORCE_CUDA': '1'}
    result = subprocess.run([sys.executable, '-c', show], cwd=ROOT, env=environment, capture_output=True, text=True)
    if torch.version.cuda is None or shutil.which('nvcc') is None:
        assert 'FORCE_CUDA=1 needs' in result.stderr
    else:
        assert ast.literal_eval(result.stdout) == {'egg_info': {'tag_build': '+cu' + torch.version.cuda.replace('.', '')}}
    environment['FORCE_CUDA'] = '0'
    assert subprocess.run([sys.executable, '-c', show], cwd=ROOT, env=environment, capture_output=True, text=True).stdout == 'None\n'


def test_links_that_a_checkout_cannot_hold_become_files(tmp_path):
    """git writes a link's target into a text file where there are no links, as on Windows."""
    for name in ('configs', 'tools'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'file.py').write_text(name)
    (tmp_path / 'model-index.yml').write_text('Import: []')
    (tmp_path / 'setup.py').write_text((ROOT / 'setup.py').read_text())
    folder = tmp_path / 'mmpool_ext' / '.mim'
    folder.mkdir(parents=True)
    for name in ('configs', 'model-index.yml'):  # and no `tools` at all
        (folder / name).write_text(f'../../{name}')
    environment = {'PATH': '/usr/bin:/bin', 'MMPOOL_EXT_WITH_OPS': '0'}
    for _ in range(2):
        subprocess.run([sys.executable, '-c', SHOW], cwd=tmp_path, env=environment, check=True)
        assert (folder / 'configs' / 'file.py').read_text() == 'configs'
        assert (folder / 'tools' / 'file.py').read_text() == 'tools'
        assert (folder / 'model-index.yml').read_text() == 'Import: []'


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
    (line,) = said(result)
    assert line.startswith(f'mmpool_ext: {message}')


def test_no_torch_stops_with_one_line(tmp_path):
    (tmp_path / 'torch.py').write_text('raise ImportError("No module named torch")')
    result = setup(tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith(
        'mmpool_ext: building the ops needs torch (No module named torch): install torch first and use --no-build-isolation'
    )
    assert setup(tmp_path, MMPOOL_EXT_WITH_OPS='0').stdout == '[]\n'


OLD_PYTHON = 'import runpy, setuptools, sys; sys.version_info = (3, 9); sys.version = "3.9.18 (x)"; '


@pytest.mark.parametrize(
    ('before', 'message'),
    [
        (
            'import setuptools; setuptools.__version__ = "60.2"; ',
            "setuptools must be 61 or newer, but got 60.2; pip install 'setuptools>=61,<81'",
        ),
        ('import torch; torch.__version__ = "2.0.1+cu118"; ', 'torch must be 2.1 or newer, but got 2.0.1+cu118; install a newer torch'),
        (
            'import runpy, setuptools, sys; sys.version_info = (3, 9); sys.version = "3.9.18 (x)"; ',
            'Python must be 3.10 or newer, but got 3.9.18; use a newer one',
        ),
    ],
)
def test_what_is_too_old_stops_with_one_line(before, message):
    result = setup(before=before)
    assert result.returncode == 1
    (line,) = said(result)
    assert line == f'mmpool_ext: {message}'


@pytest.mark.parametrize(
    ('cuda', 'way'),
    [
        ('13.0', "pip install 'cuda-toolkit[nvcc,nvvm,crt,cccl]==13.0.*', or install the CUDA toolkit 13.0 and set CUDA_HOME, and build again"),
        ('12.8', 'install the CUDA toolkit 12.8 and set CUDA_HOME, and build again'),
    ],
)
def test_gpu_without_nvcc_is_told(cuda, way):
    before = f'import torch; torch.version.cuda = "{cuda}"; torch.cuda.is_available = lambda: True; '
    result = setup(before=before, CUDA_HOME='/nowhere')
    assert 'csrc/cpu/lip_pool.cpp' in result.stdout
    (line,) = said(result)
    assert line == f'mmpool_ext: no nvcc, so the CUDA kernels are left out: {way}'


def test_the_nvcc_of_pip_is_found(tmp_path):
    """pip puts nvcc beside torch's libraries, with a runtime that a linker does not find by its name."""
    toolkit = tmp_path / 'nvidia' / 'cu13'
    for folder in ('bin', 'lib'):
        (toolkit / folder).mkdir(parents=True)
    (tmp_path / 'nvidia' / '__init__.py').touch()  # some of NVIDIA's packages have one, which would hide this folder
    nvcc, runtime = toolkit / 'bin' / 'nvcc', toolkit / 'lib' / 'libcudart.so.13'
    nvcc.write_text(f'#!/bin/sh\necho "#\\$ TOP={toolkit}" >&2\n')
    nvcc.chmod(0o755)
    runtime.touch()
    environment = {'PATH': '/usr/bin:/bin', 'PYTHONPATH': str(tmp_path)}
    before = 'import torch; torch.version.cuda = "13.0"; torch.cuda.is_available = lambda: True; '
    show = SHOW.replace('module.sources', '(module.libraries, module.extra_link_args)')
    result = subprocess.run([sys.executable, '-c', before + show], cwd=ROOT, env=environment, capture_output=True, text=True)
    (libraries, link) = ast.literal_eval(result.stdout)[0]
    assert 'torch_cuda' in libraries
    assert 'cudart' not in libraries
    assert str(runtime) in link
    ask = 'import runpy, setuptools; setuptools.setup = lambda **arguments: 0; print(runpy.run_path("setup.py")["toolkit"]("12.8"))'
    assert subprocess.run([sys.executable, '-c', ask], cwd=ROOT, env=environment, capture_output=True, text=True).stdout == 'None\n'


def test_compiler_that_refuses_openmp_builds_serially(tmp_path):
    compiler = tmp_path / 'clang'
    compiler.write_text('#!/bin/sh\ncase "$*" in *-fopenmp*) exit 1;; esac\nexec c++ "$@"\n')
    compiler.chmod(0o755)
    show = SHOW.replace('module.sources', 'str(module.extra_compile_args) + str(module.extra_link_args)')
    for cxx, expected in ((str(compiler), False), ('c++', True)):
        environment = {'PATH': '/usr/bin:/bin', 'CXX': cxx}
        result = subprocess.run([sys.executable, '-c', show], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert '-O3' in result.stdout
        assert ('-fopenmp' in result.stdout) == expected
        assert ('refuses -fopenmp, so the CPU kernels run on one core' in result.stderr) != expected
