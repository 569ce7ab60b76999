"""Report what is installed, or run a tool of this package from any folder.

python -m mmpool_ext                                # versions, compiled ops, where names resolve: paste it into a bug report
python -m mmpool_ext --help                         # list the tools
python -m mmpool_ext fit_dupsampling CONFIG ...     # what `python tools/analysis_tools/fit_dupsampling.py CONFIG ...` does in a clone
torchrun --nproc-per-node 4 -m mmpool_ext upstream mmseg train CONFIG --launcher pytorch
"""

import ast
import importlib
import platform
import runpy
import sys
import traceback
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

import mmpool_ext

MIM = Path(mmpool_ext.__file__).parent / '.mim'  # where mmengine and mim look for a package's configs; links in a clone
PACKAGES = ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'timm', 'sklearn')
DISTRIBUTIONS = dict(cv2='opencv-python', mmseg='mmsegmentation', sklearn='scikit-learn', yaml='PyYAML')  # where pip's name is another


def version_of(package):
    """Version of a package, "not installed", or why it does not import."""
    if find_spec(package) is None:
        return 'not installed'
    try:
        return importlib.import_module(package).__version__
    except Exception as error:  # a broken package is what this report is for
        return f'BROKEN: {type(error).__name__}: {error}'


def registered_names():
    """Lines ``registry.name -> class`` for every name that this package registers."""
    import mmengine.registry

    for registry_name, registry in sorted(vars(mmengine.registry).items()):
        if not isinstance(registry, mmengine.registry.Registry):
            continue
        for name, target in sorted(registry.module_dict.items()):
            if name in mmpool_ext.lazy.LAZY:
                _, module, codebase = mmpool_ext.lazy.LAZY[name]
                yield f'{registry_name}.{name} -> mmpool_ext.{module}.{name} (needs {codebase}: {version_of(codebase)})'
            elif target.__module__.startswith('mmpool_ext.'):
                yield f'{registry_name}.{name} -> {target.__module__}.{target.__qualname__}'


def compiled_ops():
    """Devices that each compiled op is built for."""
    import torch

    from mmpool_ext.ops import _extension

    if _extension.BROKEN:
        return f'BROKEN: {_extension.BROKEN}'
    if not _extension.WANTED:
        return 'switched off by MMPOOL_EXT_WITH_OPS (the plain-PyTorch forms are used)'
    kernels = _extension.KERNELS
    by_device = {device: sorted(op for op, built_for in kernels if built_for == device) for _, device in sorted(kernels)}
    said = '; '.join(f'{device}: {", ".join(ops)}' for device, ops in by_device.items()) or 'not built (the plain-PyTorch forms are used)'
    if torch.cuda.is_available() and 'cuda' not in by_device:
        said += f'; cuda: not built, so GPUs run the plain-PyTorch forms: {_extension.BUILD} compiles them, or says how to get nvcc'
    return said


def tools():
    """Paths of the tools by name."""
    return {path.stem: path for path in sorted((MIM / 'tools').rglob('*.py')) if '__main__' in path.read_text()}


def list_tools():
    """Print the manual and each tool's first line."""
    print(f'{__doc__}\nTools; each has a --help of its own:')
    for name, path in tools().items():
        print(f'  {name:24}{ast.get_docstring(ast.parse(path.read_text())).splitlines()[0]}')


def run_tool(name, arguments):
    """Run a tool as if it had been called by its path."""
    known = tools()
    if name not in known:
        close = get_close_matches(name, known, n=3)
        hint = f'; close to it: {", ".join(close)}' if close else ''
        sys.exit(f'mmpool_ext: tool must be one that `python -m mmpool_ext --help` lists, but got {name!r}{hint}')
    sys.argv = [str(known[name]), *arguments]
    sys.path.insert(0, str(known[name].parent))
    try:
        runpy.run_path(sys.argv[0], run_name='__main__')
    except ModuleNotFoundError as error:
        if [frame.name for frame in traceback.extract_tb(error.__traceback__) if frame.filename == sys.argv[0]] != ['<module>']:
            raise  # not the tool's own imports: a config's, say
        package = error.name.partition('.')[0]
        sys.exit(f'mmpool_ext: {name} needs {package}, which is not installed: pip install {DISTRIBUTIONS.get(package, package)}')


def report():
    """Print the report."""
    print(f'mmpool_ext {mmpool_ext.__version__} at {Path(mmpool_ext.__file__).parent}')
    print(f'Python {platform.python_version()} on {platform.platform()}')
    for package in PACKAGES:
        print(f'{package:12}{version_of(package)}')
    print(f'compiled ops {compiled_ops()}')
    for shipped in ('configs', 'tools'):
        print(f'{shipped:12} {MIM / shipped}')
    print('names:')
    for line in registered_names() if find_spec('mmengine') else ('none: mmengine is not installed',):
        print(f'  {line}')


def main():
    """Parse the command line."""
    if len(sys.argv) == 1:
        report()
    elif sys.argv[1] in ('-h', '--help'):
        list_tools()
    else:
        run_tool(sys.argv[1], sys.argv[2:])


if __name__ == '__main__':
    main()
