"""Backbones: stages, out_indices, freezing, checkpoints."""

from .lip_resnet import LIPResNet
from .repooled import Repooled

__all__ = ['LIPResNet', 'Repooled']
