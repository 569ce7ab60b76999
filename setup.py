"""Build of mmpool_ext; the metadata are in pyproject.toml.

Environment:
    MMPOOL_EXT_WITH_OPS=0  leave the compiled ops out: the plain-PyTorch forms serve
    FORCE_CUDA=1           compile the CUDA kernels although no GPU is visible (set TORCH_CUDA_ARCH_LIST); the version says so: 0.1.0+cu130
    MMPOOL_EXT_DEBUG=1     compile without optimisation and with debug information
    MAX_JOBS               compilers that run at once; default: the number of cores
"""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import setuptools

WAY_OUT = 'or set MMPOOL_EXT_WITH_OPS=0 to do without compiled ops'


def restore_links():
    """Copy what mmpool_ext/.mim links to where a checkout cannot hold links: git then leaves a text file with the link's target."""
    for name in ('configs', 'tools', 'model-index.yml'):
        link, target = Path('mmpool_ext/.mim', name), Path(name)
        broken = not link.exists() or (link.is_file() and link.read_text().strip() == f'../../{name}')
        if broken and target.exists():
            link.unlink(missing_ok=True)
            link.parent.mkdir(exist_ok=True)
            shutil.copytree(target, link) if target.is_dir() else shutil.copy(target, link)


def toolkit(cuda):
    """Ask nvcc for its toolkit's folder: the nvcc on PATH may be a script far from it, which torch would take for the toolkit's own.

    Where none is on PATH: the nvcc that pip installs beside torch's own libraries, of the same major release.
    """
    nvcc = shutil.which('nvcc')
    packages = importlib.util.find_spec('nvidia') if cuda else None
    for folder in packages.submodule_search_locations if packages else ():
        nvcc = nvcc or shutil.which('nvcc', path=os.path.join(folder, f'cu{release(cuda)[0]}', 'bin'))
    said = subprocess.run([nvcc, '--dryrun', '-x', 'cu', '-E', os.devnull], capture_output=True, text=True).stderr if nvcc else ''
    top = re.search(r'^#\$ TOP=(.+)$', said, re.MULTILINE)
    return os.path.realpath(top.group(1)) if top else None


def release(version):
    """Give major and minor of a version, as numbers."""
    return tuple(map(int, re.findall(r'\d+', version)[:2]))


def ways_to_nvcc(cuda):
    """Say how to get the nvcc of a CUDA release. pip has it from CUDA 13 on; its packages of CUDA 12 hold the assembler alone."""
    of_pip = f"pip install 'cuda-toolkit[nvcc,nvvm,crt,cccl]=={cuda}.*', or " if release(cuda) >= (13, 0) else ''
    return f'{of_pip}install the CUDA toolkit {cuda} and set CUDA_HOME'


def takes_openmp(compiler):
    """Whether the compiler compiles and links with -fopenmp; Apple's clang does not."""
    command = [*compiler, '-fopenmp', '-x', 'c++', '-', '-o', os.devnull]
    return subprocess.run(command, input='int main() {}', capture_output=True, text=True).returncode == 0


def extension():
    """Describe mmpool_ext._C: CPU kernels always, CUDA kernels where they can be compiled and used."""
    try:
        import torch

        if not os.environ.get('CUDA_HOME') and not os.environ.get('CUDA_PATH') and (home := toolkit(torch.version.cuda)):
            os.environ['CUDA_HOME'] = home
        from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension, CUDAExtension
    except ImportError as error:
        sys.exit(f'mmpool_ext: building the ops needs torch ({error}): install torch first and use --no-build-isolation, {WAY_OUT}')
    if release(torch.__version__) < (2, 1):
        sys.exit(f'mmpool_ext: torch must be 2.1 or newer, but got {torch.__version__}; install a newer torch')
    compiler = shlex.split(os.environ.get('CXX', 'c++'))
    if shutil.which(compiler[0]) is None:
        sys.exit(f'mmpool_ext: building the ops needs a C++ compiler, but {compiler[0]!r} was not found: install g++ or set CXX, {WAY_OUT}')
    forced = os.environ.get('FORCE_CUDA', '0') == '1'
    nvcc = shutil.which('nvcc', path=os.path.join(CUDA_HOME, 'bin')) if CUDA_HOME else None
    if forced and torch.version.cuda is None:
        sys.exit(f'mmpool_ext: FORCE_CUDA=1 needs a CUDA build of torch, but torch {torch.__version__} has none: install one, or unset FORCE_CUDA')
    if forced and nvcc is None:
        sys.exit(f'mmpool_ext: FORCE_CUDA=1 needs nvcc, but none was found: {ways_to_nvcc(torch.version.cuda)}, or unset FORCE_CUDA')
    cuda = forced or (torch.version.cuda is not None and nvcc is not None and torch.cuda.is_available())

    if not cuda and nvcc is None and torch.version.cuda is not None and torch.cuda.is_available():
        print(f'mmpool_ext: no nvcc, so the CUDA kernels are left out: {ways_to_nvcc(torch.version.cuda)}, and build again', file=sys.stderr)
    openmp = ['-fopenmp'] if takes_openmp(compiler) else []
    if not openmp:
        print(f'mmpool_ext: {compiler[0]!r} refuses -fopenmp, so the CPU kernels run on one core; set CXX to g++ for all cores', file=sys.stderr)

    os.environ.setdefault('MAX_JOBS', str(os.cpu_count()))
    # for gdb, cuda-gdb and the sanitizers
    debug = os.environ.get('MMPOOL_EXT_DEBUG', '0') == '1'
    optimise, device = (['-O0', '-g'], ['-O0', '-g', '-G']) if debug else (['-O3', '-g0'], ['-O3', '-lineinfo'])
    sources = ['csrc/ops.cpp', *sorted(map(str, Path('csrc/cpu').glob('*.cpp')))]
    if cuda:
        sources += sorted(map(str, Path('csrc/cuda').glob('*.cu')))
    module = (CUDAExtension if cuda else CppExtension)(
        'mmpool_ext._C',
        sources,
        depends=sorted(map(str, Path('csrc').rglob('*.h'))),
        # at::parallel_for is header code: without -fopenmp it is serial. gcc vectorises the kernels' loops at -O3 alone, and those that
        # choose between values only where comparisons are known not to trap.
        extra_compile_args={'cxx': [*optimise, *openmp, '-fno-trapping-math'], 'nvcc': [*device, '--expt-relaxed-constexpr']},
        extra_link_args=openmp,
    )
    runtimes = list(Path(CUDA_HOME, 'lib').glob('libcudart.so*')) if cuda else []
    if runtimes and all(path.suffix != '.so' for path in runtimes):
        # pip's toolkit has no libcudart.so for the linker, only the library that torch loads, libcudart.so.13
        module.libraries.remove('cudart')
        module.extra_link_args = [*openmp, *map(str, runtimes)]
    local = {'options': {'egg_info': {'tag_build': f'+cu{torch.version.cuda.replace(".", "")}'}}} if forced else {}
    return {'ext_modules': [module], 'cmdclass': {'build_ext': BuildExtension}, **local}


if sys.version_info < (3, 10):  # noqa: UP036 - pip says so itself, from the metadata, but not `python setup.py`
    sys.exit(f'mmpool_ext: Python must be 3.10 or newer, but got {sys.version.split()[0]}; use a newer one')
if release(setuptools.__version__) < (61, 0):
    sys.exit(f"mmpool_ext: setuptools must be 61 or newer, but got {setuptools.__version__}; pip install 'setuptools>=61,<81'")
restore_links()
setuptools.setup(**(extension() if os.environ.get('MMPOOL_EXT_WITH_OPS', '1') == '1' else {}))
