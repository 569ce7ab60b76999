"""Build of mmpool_ext; the metadata are in pyproject.toml.

Environment:
    MMPOOL_EXT_WITH_OPS=0  leave the compiled ops out: the plain-PyTorch forms serve
    FORCE_CUDA=1           compile the CUDA kernels although no GPU is visible (set TORCH_CUDA_ARCH_LIST then)
    MAX_JOBS               compilers that run at once; default: the number of cores
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup

WAY_OUT = 'or set MMPOOL_EXT_WITH_OPS=0 to do without compiled ops'


def toolkit():
    """Ask nvcc for its toolkit's folder: the nvcc on PATH may be a script far from it, which torch would take for the toolkit's own."""
    nvcc = shutil.which('nvcc')
    said = subprocess.run([nvcc, '--dryrun', '-x', 'cu', '-E', os.devnull], capture_output=True, text=True).stderr if nvcc else ''
    top = re.search(r'^#\$ TOP=(.+)$', said, re.MULTILINE)
    return os.path.realpath(top.group(1)) if top else None


def extension():
    """Describe mmpool_ext._C: CPU kernels always, CUDA kernels where they can be compiled and used."""
    if not os.environ.get('CUDA_HOME') and not os.environ.get('CUDA_PATH') and (home := toolkit()):
        os.environ['CUDA_HOME'] = home
    try:
        import torch
        from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension, CUDAExtension
    except ImportError as error:
        sys.exit(f'mmpool_ext: building the ops needs torch ({error}): install torch first and use --no-build-isolation, {WAY_OUT}')
    compiler = shlex.split(os.environ.get('CXX', 'c++'))[0]
    if shutil.which(compiler) is None:
        sys.exit(f'mmpool_ext: building the ops needs a C++ compiler, but {compiler!r} was not found: install g++ or set CXX, {WAY_OUT}')
    forced = os.environ.get('FORCE_CUDA', '0') == '1'
    nvcc = shutil.which('nvcc', path=os.path.join(CUDA_HOME, 'bin')) if CUDA_HOME else None
    if forced and torch.version.cuda is None:
        sys.exit(f'mmpool_ext: FORCE_CUDA=1 needs a CUDA build of torch, but torch {torch.__version__} has none: install one, or unset FORCE_CUDA')
    if forced and nvcc is None:
        sys.exit('mmpool_ext: FORCE_CUDA=1 needs nvcc, but none was found: install the CUDA toolkit and set CUDA_HOME, or unset FORCE_CUDA')
    cuda = forced or (torch.version.cuda is not None and nvcc is not None and torch.cuda.is_available())

    os.environ.setdefault('MAX_JOBS', str(os.cpu_count()))
    sources = ['csrc/ops.cpp', *sorted(map(str, Path('csrc/cpu').glob('*.cpp')))]
    if cuda:
        sources += sorted(map(str, Path('csrc/cuda').glob('*.cu')))
    module = (CUDAExtension if cuda else CppExtension)(
        'mmpool_ext._C',
        sources,
        depends=sorted(map(str, Path('csrc').rglob('*.h'))),
        # at::parallel_for is header code: without -fopenmp it is serial. gcc vectorises the kernels' loops at -O3 alone, and those that
        # choose between values only where comparisons are known not to trap.
        extra_compile_args={'cxx': ['-O3', '-g0', '-fopenmp', '-fno-trapping-math'], 'nvcc': ['-O3', '--expt-relaxed-constexpr', '-lineinfo']},
        extra_link_args=['-fopenmp'],
    )
    return {'ext_modules': [module], 'cmdclass': {'build_ext': BuildExtension}}


setup(**(extension() if os.environ.get('MMPOOL_EXT_WITH_OPS', '1') == '1' else {}))
