"""GatedPool2d against the oracle and by hand."""

import math

import pytest
import reference
import torch

from mmpool_ext.layers import GatedPool2d


def test_by_hand():
    pool = GatedPool2d(1)
    with torch.no_grad():
        pool.mask.copy_(torch.tensor([[[[1.0, 0.0], [0.0, -0.5]]]]))
    gate = 1 / (1 + math.exp(1))  # 1 * 1 - 0.5 * 4 = -1
    expected = torch.full((1, 1, 1, 1), gate * 4 + (1 - gate) * 2.5)
    torch.testing.assert_close(pool(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])), expected)


@pytest.mark.parametrize('window', [((2, 2), (2, 2), (0, 0), False), ((3, 3), (2, 2), (1, 1), False), ((3, 2), (2, 3), (1, 1), True)])
def test_against_float64_reference(window):
    generator = torch.Generator().manual_seed(0)
    pool = GatedPool2d(2, *window[:3], ceil_mode=window[3]).double()
    input = torch.randn(2, 2, 7, 6, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(pool(input), reference.gated_pool2d(input, pool.mask.flatten().tolist(), *window))
    assert torch.autograd.gradcheck(pool, input.requires_grad_())


def test_the_mask_starts_as_a_standard_gaussian():
    torch.manual_seed(0)
    masks = torch.cat([GatedPool2d(1, 5, 2).mask.flatten() for _ in range(40)])
    assert masks.mean().item() == pytest.approx(0, abs=0.1)
    assert masks.std().item() == pytest.approx(1, abs=0.1)
