"""What older releases of torch cannot do, as marks for tests; the reason names the release."""

import pytest
import torch

from mmpool_ext.ops._extension import torch_release


def needs_torch(major, minor):
    """Skip before a release: the first that was seen to do it."""
    reason = f'needs torch {major}.{minor}, but this is {torch.__version__}'
    return pytest.mark.skipif(torch_release(torch.__version__) < (major, minor), reason=reason)


HALF = pytest.param(torch.float16, marks=needs_torch(2, 4), id='float16')  # torch 2.1's CPU neither convolves nor autocasts in float16
