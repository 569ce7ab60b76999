"""Backbones: stages, out_indices, freezing, checkpoints."""

from .lip_resnet import LIPResNet

__all__ = ['LIPResNet']
