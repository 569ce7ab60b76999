"""``python -m mmpool_ext``: what is installed and where names resolve, to paste into a bug report."""

import importlib
import platform
from importlib.util import find_spec
from pathlib import Path

import mmpool_ext

MIM = Path(mmpool_ext.__file__).parent / '.mim'  # where mmengine and mim look for a package's configs; links in a clone
PACKAGES = ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'timm', 'sklearn')


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
    from mmpool_ext.ops._extension import KERNELS

    by_device = {device: sorted(op for op, built_for in KERNELS if built_for == device) for _, device in sorted(KERNELS)}
    return '; '.join(f'{device}: {", ".join(ops)}' for device, ops in by_device.items()) or 'not built (the plain-PyTorch forms are used)'


def main():
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


if __name__ == '__main__':
    main()
