"""Hypothesis without a deadline (timing on a shared machine says nothing); and configs that resolve on both stacks, in a tenth of the time."""

import functools
from importlib.metadata import packages_distributions
from importlib.util import find_spec

import hypothesis

hypothesis.settings.register_profile('shared-machine', deadline=None)
hypothesis.settings.load_profile('shared-machine')

if find_spec('mmengine'):  # the tests of the ops need torch alone
    from mmengine.config import config, utils

    # For each ``mmseg::`` mmengine reads every metafile of the codebase and reloads pkg_resources: a second each.
    utils.load = functools.cache(utils.load)
    config.is_installed = functools.cache(config.is_installed)
    if find_spec('mmseg'):  # The forks' mmengine looks for a distribution named mmsegmentation: README.md, "Upstream traps".
        utils.MODULE2PACKAGE['mmseg'] = packages_distributions()['mmseg'][0]
