"""Backbones: stages, out_indices, freezing, checkpoints."""

from .lip_resnet import LIPResNet
from .ppool_inception import PPoolInceptionV2
from .repooled import Repooled

__all__ = ['LIPResNet', 'PPoolInceptionV2', 'Repooled']
