"""Poolings as functions of tensors: each output is a weighted mean over a window."""

from .gated_lip_pool import gated_lip_pool2d
from .instance_norm import instance_norm_relu
from .lan_pool import lan_pool2d
from .lip_pool import lip_pool2d
from .polynomial_pool import polynomial_pool2d
from .pyramid import fuse_pyramid, label_pyramid, relabel_pyramid
from .soft_pool import soft_pool2d

__all__ = [
    'fuse_pyramid',
    'gated_lip_pool2d',
    'instance_norm_relu',
    'label_pyramid',
    'lan_pool2d',
    'lip_pool2d',
    'polynomial_pool2d',
    'relabel_pyramid',
    'soft_pool2d',
]
