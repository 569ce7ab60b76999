"""Pooling and upsampling that keep details, for mmdet, mmseg and mmpretrain configs.

``custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)`` registers every name of this package in mmengine's root registries.
No codebase is imported by that: what needs one is in :mod:`mmpool_ext.lazy`. With torch alone (no mmengine), :mod:`mmpool_ext.ops` works.
"""

import warnings
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec

from . import ops
from .version import __version__

__all__ = ['__version__', 'ops']


def _found(package):
    try:
        return find_spec(package) is not None
    except Exception:  # a finder may raise what it likes, and a stand-in without __spec__ gives ValueError: neither may stop the import
        return False


def _lacks_distribution(module, name):
    if not _found(module):
        return False
    try:
        distribution(name)
    except PackageNotFoundError:
        return True
    return False


if find_spec('mmengine') is not None:
    from mmengine.config.utils import MODULE2PACKAGE

    from . import backbones, layers, lazy
    from .backbones import *  # noqa: F403
    from .layers import *  # noqa: F403

    # mmengine looks a name that is no distribution's up as a module: ``mmseg::`` is found with the forks, which have other names.
    MODULE2PACKAGE |= {name: name for name, package in MODULE2PACKAGE.items() if name != package and _lacks_distribution(name, package)}
    # Lets ``_base_ = 'mmpool_ext::lip/...'`` find .mim/configs, as a module too: right in editable installs, in clones and in folders on PYTHONPATH,
    # where mmengine would look for the distribution's files in site-packages.
    MODULE2PACKAGE['mmpool_ext'] = 'mmpool_ext.version'
    __all__ += [*backbones.__all__, *layers.__all__, *(name for name, (_, _, codebase) in lazy.LAZY.items() if _found(codebase))]


def __getattr__(name):
    if name in getattr(globals().get('lazy'), 'LAZY', ()):
        try:
            return lazy.load(name)
        except RuntimeError as error:
            # hasattr needs this type. ``from mmpool_ext import name`` drops its text and says "cannot import name": the warning gives the reason.
            warnings.warn(str(error), stacklevel=2)
            raise AttributeError(str(error)) from error
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__():
    return sorted({*globals(), *__all__})
