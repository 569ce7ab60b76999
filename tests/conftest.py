"""Hypothesis without a deadline: timing on a shared machine says nothing."""

import hypothesis

hypothesis.settings.register_profile('shared-machine', deadline=None)
hypothesis.settings.load_profile('shared-machine')
