"""Sizes of images and features, as the heads compare them."""

import pytest
import torch

pytest.importorskip('mmseg')
from mmpool_ext.decode_heads.geometry import check_stride, network_size


def test_padding_belongs_to_the_size_and_a_sliding_window_has_none():
    assert network_size([dict(img_shape=(20, 30))]) == (20, 30)
    assert network_size([dict(img_shape=(20, 30), pad_shape=(32, 32, 3))]) == (32, 32)
    assert network_size([dict(img_shape=torch.Size((16, 16)), pad_shape=(32, 32))]) == (16, 16)  # as mmseg sets it


@pytest.mark.parametrize('cells', [(4, 6), (5, 6), (4, 7)])
def test_a_backbone_may_round_up_or_down(cells):
    check_stride('the rule', 8, cells, (33, 50))


@pytest.mark.parametrize('cells', [(8, 12), (2, 3), (6, 6), (4, 8)])
def test_another_stride_is_an_error(cells):
    with pytest.raises(ValueError, match=rf'the rule, but got features of {cells[0]} x {cells[1]} for an image of 33 x 50'):
        check_stride('the rule', 8, cells, (33, 50))
