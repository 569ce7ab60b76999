"""MaximumPool2d is torch's max pooling."""

import torch
from torch.nn import functional as F

from mmpool_ext.layers import MaximumPool2d


def test_is_torch_max_pooling():
    input = -torch.rand(1, 2, 7, 5)
    torch.testing.assert_close(MaximumPool2d(2, 3, 2, 1, ceil_mode=True)(input), F.max_pool2d(input, 3, 2, 1, ceil_mode=True))
