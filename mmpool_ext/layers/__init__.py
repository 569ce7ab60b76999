"""Pooling layers: an op with its parameters."""

from .average_pool import AveragePool2d
from .lip_pool import BottleneckLogit, BottleneckTrunk, LIPPool2d, ProjectionLogit, SimplifiedLogit

__all__ = ['AveragePool2d', 'BottleneckLogit', 'BottleneckTrunk', 'LIPPool2d', 'ProjectionLogit', 'SimplifiedLogit']
