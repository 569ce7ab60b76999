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
    for codebase in filter(find_spec, ('mmdet', 'mmseg', 'mmpretrain')):
        # The forks' mmengine looks for distributions of the upstream names, such as mmsegmentation: README.md, "Upstream traps".
        utils.MODULE2PACKAGE[codebase] = packages_distributions()[codebase][0]
