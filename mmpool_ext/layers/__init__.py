"""Pooling layers: an op with its parameters."""

from .average_pool import AveragePool2d
from .coarse_to_fine_context import CoarseToFineContext
from .conv_pool import ConvPool2d
from .detail_preserving_pool import DetailPreservingPool2d
from .dupsampling import DUpsampling
from .dupsampling_fit import fit_dupsampling
from .gated_pool import GatedPool2d
from .lip_pool import BottleneckLogit, BottleneckTrunk, LIPPool2d, ProjectionLogit, SimplifiedLogit
from .lp_pool import LpPool2d
from .maximum_pool import MaximumPool2d
from .polynomial_pool import PolynomialPool2d
from .soft_pool import SoftPool2d
from .window_pool import WindowPool2d

__all__ = [
    'AveragePool2d',
    'BottleneckLogit',
    'BottleneckTrunk',
    'CoarseToFineContext',
    'ConvPool2d',
    'DUpsampling',
    'DetailPreservingPool2d',
    'GatedPool2d',
    'LIPPool2d',
    'LpPool2d',
    'MaximumPool2d',
    'PolynomialPool2d',
    'ProjectionLogit',
    'SimplifiedLogit',
    'SoftPool2d',
    'WindowPool2d',
    'fit_dupsampling',
]
