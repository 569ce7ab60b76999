"""Hypothesis without a deadline (timing on a shared machine says nothing); configs that resolve in a tenth of the time; and no
default scope that a test leaves to the next one."""

import functools
from importlib.util import find_spec

import hypothesis
import pytest

hypothesis.settings.register_profile('shared-machine', deadline=None)
hypothesis.settings.load_profile('shared-machine')

if find_spec('mmengine'):  # the tests of the ops need torch alone
    from mmengine.config import config, utils

    # For each ``mmseg::`` mmengine reads every metafile of the codebase and reloads pkg_resources: a second each.
    utils.load = functools.cache(utils.load)
    config.is_installed = functools.cache(config.is_installed)


@pytest.fixture(autouse=True)
def default_scope_of_each_test():
    """Names resolve in the default scope, so a test that sets one must not decide what the next test builds."""
    if not find_spec('mmengine'):
        yield
        return
    from mmengine.registry import DefaultScope

    before = DefaultScope._instance_dict.copy()
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


@pytest.fixture(scope='session')
def emulated(tmp_path_factory):
    """The CUDA kernels as host code, which takes a while to compile."""
    from emulated import Emulated, need_compiler

    need_compiler()
    return Emulated(tmp_path_factory.mktemp('emulate') / 'emulate.so')
