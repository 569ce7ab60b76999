"""Backbones: stages, out_indices, freezing, checkpoints."""

from .label_encoder import LabelEncoder
from .lip_resnet import LIPResNet
from .ppool_inception import PPoolInceptionV2
from .repooled import Repooled
from .tapped import Tapped

__all__ = ['LIPResNet', 'LabelEncoder', 'PPoolInceptionV2', 'Repooled', 'Tapped']
