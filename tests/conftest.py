"""Hypothesis without a deadline: timing on a shared machine says nothing. And configs that parse in a tenth of the time."""

import functools

import hypothesis
from mmengine.config import config, utils

hypothesis.settings.register_profile('shared-machine', deadline=None)
hypothesis.settings.load_profile('shared-machine')

# For each ``mmseg::`` mmengine reads every metafile of the codebase and reloads pkg_resources: a second each
utils.load = functools.cache(utils.load)
config.is_installed = functools.cache(config.is_installed)
