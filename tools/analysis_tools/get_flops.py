"""Count parameters, multiply-adds and activations of the networks of configs, for one image each.

    python tools/analysis_tools/get_flops.py configs/lip/*.py
    python tools/analysis_tools/get_flops.py configs/dupsampling/dupsampling_r50-os16_4xb12-30k_voc12-513x513.py --shape 513 513

The network is built without weights and traced by mmengine's complexity analysis, so mmengine's rules make the column "multiply-adds"
(convolutions, products, normalisation, bilinear resizing), with deformable convolutions counted as if they were plain. Poolings, which mmengine
counts as nothing, are a column of their own: k * k multiply-adds an output for each lip_pool2d, polynomial_pool2d, lan_pool2d, soft_pool2d, average
and max pooling of a k x k window (not for what is written out in plain PyTorch: DPP, Lp).
Auxiliary heads are left out, as they are at inference. A two-stage detector's head runs on the proposals of random weights, 1000 as a rule.

Papers count in ways of their own, which the last two columns follow:
  LIP          multiply-adds of convolutions and linear layers, 2 a value of batch normalisation, 1 a value of ReLU and of a pooling's input; the
               importance itself (normalisation, sigmoid, exponential) is free
  DUpsampling  2 a multiply-add, of the decoder alone: what follows the ASPP; DUpsampling's bias and temperature make 1 multiply-add an output value
"""

import argparse
import warnings
from collections import Counter
from functools import partial
from math import prod
from pathlib import Path
from unittest.mock import patch

import torch
from mmengine.analysis import ActivationAnalyzer, FlopAnalyzer
from mmengine.analysis.jit_handles import get_shape
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

from mmpool_ext.datasets.dataset_configs import leaves, type_name
from mmpool_ext.layers import DUpsampling, ProjectionLogit
from mmpool_ext.ops import _extension
from mmpool_ext.ops._extension import BUILD, KERNELS

OPS = {'lip_pool2d': 2, 'polynomial_pool2d': 2, 'lan_pool2d': 2, 'soft_pool2d': 1}  # position of the window
DEFORMABLE = {'prim::PythonOp.DeformConv2dFunction': 2, 'prim::PythonOp.ModulatedDeformConv2dFunction': 3}  # position of the weight
PRODUCTS = (*DEFORMABLE, 'aten::_convolution', 'aten::addmm', 'aten::linear', 'aten::matmul', 'aten::mm', 'aten::bmm')
VALUES_LIP = {
    'aten::batch_norm': 2,
    'aten::relu': 1,
    'aten::relu_': 1,
    'aten::max_pool2d': 1,
    'aten::avg_pool2d': 1,
    'aten::adaptive_avg_pool2d': 1,
}
COLUMNS = {  # heading: key of `costs`, unit
    'parameters (M)': ('parameters', 1e6),
    'multiply-adds (G)': ('multiply_adds', 1e9),
    'pooling (G)': ('pooling', 1e9),
    'activations (M)': ('activations', 1e6),
    'LIP counts (G)': ('lip', 1e9),
    'DUpsampling counts (G)': ('dupsampling', 1e9),
}


def _integers(value):
    """Integers of a list in a traced graph."""
    return value.toIValue() or [item.toIValue() for item in value.node().inputs()]


def _window_products(inputs, outputs, window):
    """k * k multiply-adds an output; ``window`` is the position of the kernel size among the op's arguments."""
    kernel = _integers(inputs[window])
    return prod(get_shape(outputs[0])) * (kernel[0] * kernel[-1])


def _deformable_products(inputs, outputs, weight):
    """Those of a convolution: mmengine knows none of mmcv's own."""
    return prod(get_shape(outputs[0])) * prod(get_shape(inputs[weight])[1:])


def _handles(analyzer, activations):
    """For each kind of operation a function of a traced node that returns what it adds to each column."""
    analyzer |= {kind: partial(_deformable_products, weight=weight) for kind, weight in DEFORMABLE.items()}
    activations = {*activations, *DEFORMABLE}
    windows = {'aten::max_pool2d': 1, 'aten::avg_pool2d': 1, **{f'mmpool_ext::{op}': position for op, position in OPS.items()}}

    def count(kind, inputs, outputs):
        counts = Counter()
        if kind in analyzer:
            counts['multiply_adds'] = analyzer[kind](inputs, outputs)
            if isinstance(counts['multiply_adds'], Counter):
                counts['multiply_adds'] = sum(counts['multiply_adds'].values())
        if kind in activations:
            counts['activations'] = prod(get_shape(outputs[0]))
        if kind in windows:
            counts['pooling'] = _window_products(inputs, outputs, windows[kind])
        if kind in PRODUCTS:
            counts['lip'] = counts['multiply_adds']
            bias = prod(get_shape(outputs[0])) if kind == 'aten::linear' and get_shape(inputs[2]) else 0
            counts['dupsampling'] = 2 * (counts['multiply_adds'] + bias)
        elif kind in VALUES_LIP:
            counts['lip'] = VALUES_LIP[kind] * prod(get_shape(inputs[0]))
        return counts

    return {kind: partial(count, kind) for kind in {*analyzer, *activations, *windows, *VALUES_LIP}}


def network_shape(cfg):
    """``(height, width)`` of the images that a config's network sees, or the size that detectors pad the usual image to.

    Raises:
        ValueError: If the config does not tell.
    """
    if size := cfg.model.get('data_preprocessor', {}).get('size'):
        return tuple(size)
    steps = {type_name(step): step for step in next(leaves(cfg.test_dataloader.dataset)).pipeline}
    if 'CenterCrop' in steps:
        return (steps['CenterCrop']['crop_size'],) * 2
    if 'Resize' in steps:
        divisor = cfg.model.get('data_preprocessor', {}).get('pad_size_divisor', 1)
        return tuple(-(-edge // divisor) * divisor for edge in steps['Resize']['scale'][::-1])
    raise ValueError('get_flops: shape must be given for a config whose images keep their own size, but got none; pass --shape H W')


def build(cfg):
    """Build a config's network for inference without reading any file: no checkpoint, no fitted W."""
    cfg = cfg.copy()
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    if 'auxiliary_head' in cfg.model:
        cfg.model.auxiliary_head = None
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).eval()
    for layer in model.modules():
        if isinstance(layer, (ProjectionLogit, nn.InstanceNorm2d)):
            layer.register_forward_hook(lambda *_: None)  # a module that is watched is called, so each part of a fused op is counted
        if isinstance(layer, DUpsampling):
            layer.init, layer.weight_file = 'random', None  # any W serves for counting
            layer.init_weights()
    return model


def costs(config, shape=None):
    """Count what one image costs.

    Args:
        config: Config file.
        shape: ``(height, width)`` of the image. Default: :func:`network_shape`.

    Returns:
        ``shape``, ``parameters``, ``multiply_adds``, ``pooling``, ``activations``, ``lip`` and, for networks with a decoder of the DUpsampling
        paper, ``dupsampling``: numbers of operations, not millions.

    Raises:
        RuntimeError: If the compiled ops are not built: their plain-PyTorch forms cannot be told from other arithmetic in a trace.
        ValueError: If neither ``shape`` nor the config gives the size of the image.
    """
    missing = [op for op in OPS if (op, 'cpu') not in KERNELS]
    if missing:
        raise RuntimeError(f'get_flops: the ops must be compiled, but got no {", ".join(missing)}: {BUILD}')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return _costs(Config.fromfile(config), shape)


def _costs(cfg, shape):
    height, width = shape or network_shape(cfg)
    model = build(cfg)
    if cfg.get('default_scope') == 'mmdet':
        from mmdet.structures import DetDataSample

        size = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), (height, width))
        model.forward = partial(model.forward, data_samples=[DetDataSample(metainfo=dict(size, scale_factor=(1.0, 1.0)))])
    image = torch.rand(1, cfg.model.backbone.get('in_channels', 3), height, width)
    # Tracing counts as exporting, for which the ops take their plain forms; here each op must stay one node.
    with torch.no_grad(), patch.object(_extension, 'is_exporting', lambda: False):
        analyzer = FlopAnalyzer(model, image).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analyzer.set_op_handle(**_handles(dict(analyzer._op_handles), ActivationAnalyzer(model, image)._op_handles))
        by_module = analyzer.by_module_and_operator()
    counted = by_module['']
    result = dict(shape=[height, width], parameters=sum(parameter.numel() for parameter in model.parameters()))
    result |= {column: int(counted[column]) for column in ('multiply_adds', 'pooling', 'activations', 'lip')}
    if 'decode_head' in cfg.model and type_name(cfg.model.decode_head) in ('DUpsamplingHead', 'BilinearFusionHead'):
        encoder = by_module.get('decode_head.aspp', Counter())
        result['dupsampling'] = int(by_module['decode_head']['dupsampling'] - encoder['dupsampling'])
    return result


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', metavar='CONFIG', nargs='+', type=Path)
    parser.add_argument('--shape', type=int, nargs=2, metavar=('H', 'W'), help="image size in pixels (default: the config's)")
    args = parser.parse_args()
    table = Table('config', 'shape', *COLUMNS)
    for config in track(args.configs, 'count', transient=True):
        try:
            counted = costs(config, args.shape)
        except (ValueError, RuntimeError) as error:
            parser.error(f'{config}: {error}')
        cells = (f'{counted[key] / unit:.4g}' if key in counted else '' for key, unit in COLUMNS.values())
        table.add_row(config.stem, '{} x {}'.format(*counted['shape']), *cells)
    Console(width=max(Console().width, 180)).print(table)


if __name__ == '__main__':
    main()
