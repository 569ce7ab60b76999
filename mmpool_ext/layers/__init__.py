"""Pooling layers: an op with its parameters."""

from .average_pool import AveragePool2d
from .coarse_to_fine_context import CoarseToFineContext
from .lip_pool import BottleneckLogit, BottleneckTrunk, LIPPool2d, ProjectionLogit, SimplifiedLogit

__all__ = ['AveragePool2d', 'BottleneckLogit', 'BottleneckTrunk', 'CoarseToFineContext', 'LIPPool2d', 'ProjectionLogit', 'SimplifiedLogit']
