"""Every backbone, head and segmentor leaves the package: five routes, dynamic batch and sizes, run at sizes other than the example's, odd ones too.

``make test-slow`` runs those that take seconds each.
"""

import functools
import io
import subprocess
import sys

import pytest
import torch
from export_onnx import BY_TRACING
from mmengine.registry import MODELS
from releases import needs_torch
from torch import nn

import mmpool_ext  # noqa: F401 registers

for module in ('mmseg', 'timm', 'torchvision', 'onnx', 'onnxruntime'):
    pytest.importorskip(module)

# Windows that ceil_mode, the border and the kernel make different
POOLS = {
    'average': dict(type='AveragePool2d', kernel_size=2, stride=2, padding=1, ceil_mode=True),
    'average-dilated': dict(type='AveragePool2d', kernel_size=3, stride=2, padding=1, dilation=2, ceil_mode=True),
    'conv': dict(type='ConvPool2d', kernel_size=2, stride=2, ceil_mode=True),
    'detail-preserving': dict(type='DetailPreservingPool2d', kernel_size=2, stride=2, ceil_mode=True),
    'detail-preserving-full': dict(type='DetailPreservingPool2d', kernel_size=2, stride=2, ceil_mode=True, lite=False, symmetric=False),
    'gated': dict(type='GatedPool2d', kernel_size=3, stride=2, padding=1, ceil_mode=True),
    'lip': dict(type='LIPPool2d', kernel_size=3, stride=2, padding=1, ceil_mode=True),
    'lip-bottleneck': dict(type='LIPPool2d', kernel_size=2, stride=2, padding=0, logit=dict(type='BottleneckLogit', mid_channels=4)),
    'lp': dict(type='LpPool2d', kernel_size=2, stride=2, ceil_mode=True),
    'lp-learnable': dict(type='LpPool2d', kernel_size=3, stride=3, padding=1, ceil_mode=True, learnable=True),
    'maximum': dict(type='MaximumPool2d', kernel_size=2, stride=2, padding=1, ceil_mode=True),
    'maximum-dilated': dict(type='MaximumPool2d', kernel_size=2, stride=2, dilation=3, ceil_mode=True),
    'polynomial': dict(type='PolynomialPool2d', kernel_size=2, stride=2, ceil_mode=True),
    'soft': dict(type='SoftPool2d', kernel_size=3, stride=1, padding=1),
}


class Side(nn.Module):
    """Modules side by side on one input."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, input):
        return tuple(layer(input) for layer in self.layers)


def pools():
    return Side([MODELS.build(dict(pool, in_channels=3)) for pool in POOLS.values()])


def segmentor(backbone, decode_head, type='EncoderDecoder', **kwargs):
    import mmseg.models  # noqa: F401 registers
    from mmseg.registry import MODELS as SEGMENTORS

    config = dict(type=type, backbone=backbone, decode_head=decode_head, train_cfg={}, test_cfg=dict(mode='whole'), **kwargs)
    return Logits(SEGMENTORS.build(config))


class Logits(nn.Module):
    """What a deployed segmentor does: full-size logits of a normalised image."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input):
        if self.model.align_corners:  # the head alone: mmseg's resizing to the image warns by sizes then, which torch.export takes for fixed
            return self.model(input)
        return self.model.encode_decode(input, [dict(img_shape=input.shape[2:])])


PPOOL = dict(type='PolynomialPool2d')
BACKBONES = {
    'LIPResNet': dict(type='LIPResNet', depth=14, base_channels=8, out_indices=(1,)),
    'LIPResNet-DPP': dict(
        type='LIPResNet',
        depth=14,
        base_channels=8,
        out_indices=(1,),
        pool=dict(type='DetailPreservingPool2d'),
        stem_lip=False,
        pool_block_output=True,
    ),
    'LIPDenseNet': dict(type='LIPDenseNet', out_indices=(1,)),
    'PPoolResNet': dict(type='PPoolResNet', depth=18, pool=PPOOL, out_indices=(1,)),
    'PPoolVGG': dict(type='PPoolVGG', depth=11, pool=PPOOL, out_indices=(1,)),
    'PPoolInceptionV2': dict(type='PPoolInceptionV2', pool=PPOOL, out_indices=(1,)),
    'PPoolInceptionV2-plain': dict(type='PPoolInceptionV2', pool=None, out_indices=(3,)),
    'PPoolXception': dict(type='PPoolXception', pool=PPOOL, out_indices=(1,)),
    'Repooled': dict(
        type='Repooled', backbone='mmseg.ResNetV1c', depth=18, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,), pool=PPOOL
    ),
    'Repooled-timm': dict(type='Repooled', backbone='timm.resnet18', out_indices=(1, 2), pool=dict(type='GatedPool2d')),
    'Tapped': dict(type='Tapped', backbone='mmseg.ResNetV1c', depth=18, taps=['stem.8', 'layer1.1.norm2'], out_indices=(1,)),
}


def encoder(strides, **kwargs):
    return dict(dict(type='LabelEncoder', in_channels=3, channels=(4, 6, 8, 10, 12), strides=strides), **kwargs)


def tapped(strides):
    """Maps of 8, 10 and 12 channels."""
    return encoder(strides, type='Tapped', backbone='LabelEncoder', taps=['layers.2', 'layers.3'])


def pyramid(context, type='EncoderDecoder', align_corners=False):
    return segmentor(
        encoder((2, 2, 1, 1, 1)),
        dict(
            type='PyramidRepresentationHead',
            in_channels=12,
            in_index=0,
            channels=8,
            num_classes=3,
            strides=(16, 8, 4),
            unity_channels=4,
            norm_cfg=dict(type='BN'),
            align_corners=align_corners,
            context=context,
        ),
        type,
    )


FUSION = dict(in_channels=[8, 10, 12], in_index=[0, 1, 2], channels=8, num_classes=3, dilations=(1, 6), low_level_channels=4)
FAMILIES = {
    'layers': pools,
    **{name: functools.partial(MODELS.build, config) for name, config in BACKBONES.items()},
    'LabelEncoder-FCN8sHead': lambda: segmentor(
        tapped((2, 2, 2, 2, 2)), dict(type='FCN8sHead', in_channels=(8, 10, 12), num_classes=3, norm_cfg=dict(type='BN'))
    ),
    'Tapped-BilinearFusionHead': lambda: segmentor(tapped((2, 2, 2, 2, 1)), dict(FUSION, type='BilinearFusionHead')),
    'Tapped-BilinearFusionHead-align-corners': lambda: segmentor(
        tapped((2, 2, 2, 2, 1)), dict(FUSION, type='BilinearFusionHead', align_corners=True)
    ),
    'Tapped-DUpsamplingHead': lambda: segmentor(
        tapped((2, 2, 2, 2, 1)), dict(FUSION, type='DUpsamplingHead', upsample=dict(in_channels=4, scale_factor=16, init='random'))
    ),
    'PyramidRepresentationHead': lambda: pyramid(dict(type='CoarseToFineContext', key_channels=4, pool_scales=(1, 3))),
    'PyramidRepresentationHead-ANL': lambda: pyramid(dict(type='AsymmetricNonLocalContext', key_channels=4, pool_scales=(1, 3))),
    'PyramidEncoderDecoder': lambda: pyramid(None, 'PyramidEncoderDecoder'),
}
# torch's own poolings tell torch.export that the parity of their input is the example's, though the graph is right for both: docs/faq.md
TORCH_POOLS = {
    'layers',
    'LIPResNet-DPP',
    'PPoolResNet',
    'PPoolInceptionV2-plain',
    'PPoolXception',
    'Repooled-timm',
    'Tapped',
    'PyramidRepresentationHead',
}
EXAMPLE = (2, 3, 96, 128)
OTHERS = [(2, 3, 96, 128), (1, 3, 101, 131), (3, 3, 128, 97)]


@functools.cache
def build(family):
    torch.manual_seed(0)
    module = FAMILIES[family]()
    for part in module.modules():
        if hasattr(part, 'init_weights') and type(part).__name__ == 'DUpsampling':
            part.init_weights()
    for parameter in module.parameters():  # zero-initialised logits would hide what the poolings do
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    module.eval()  # mmseg's ResNet returns None from it
    return module


def image(shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


def flat(output):
    return [output] if isinstance(output, torch.Tensor) else list(output)


@functools.cache
def exported(family):
    dims = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    return torch.export.export(build(family), (image(EXAMPLE),), dynamic_shapes=(dims,))


def by_export(family):
    program = exported(family)
    assert not [str(node.target) for node in program.graph.nodes if 'mmpool_ext' in str(node.target)]
    return program.module(check_guards=family not in TORCH_POOLS)


def by_compile(family):
    torch._dynamo.reset()
    return torch.compile(build(family), fullgraph=True, dynamic=True, backend='eager')


def by_trace(family):
    traced = torch.jit.trace(build(family), image(EXAMPLE), check_trace=False)
    assert 'mmpool_ext::' not in str(traced.inlined_graph)  # the names of classes stay, as text
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)
    return torch.jit.load(io.BytesIO(buffer.getvalue()))


def session(buffer):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    run = onnxruntime.InferenceSession(buffer, options, providers=['CPUExecutionProvider'])
    return lambda input: [torch.from_numpy(output) for output in run.run(None, {run.get_inputs()[0].name: input.numpy()})]


def by_onnx_dynamo(family):
    return session(torch.onnx.export(exported(family), dynamo=True, verbose=False).model_proto.SerializeToString())


def by_onnx_script(family):
    buffer = io.BytesIO()
    axes = {'input': {0: 'n', 2: 'h', 3: 'w'}}
    torch.onnx.export(build(family), (image(EXAMPLE),), buffer, **BY_TRACING, input_names=['input'], dynamic_axes=axes, opset_version=17)
    return session(buffer.getvalue())


ROUTES = {'export': by_export, 'trace': by_trace, 'onnx-script': by_onnx_script, 'compile': by_compile, 'onnx-dynamo': by_onnx_dynamo}
# What a route asks for: of compiled and exported graphs torch has had dynamic sizes as the tests take them since 2.6.
NEEDED = {'export': (2, 6), 'compile': (2, 6), 'onnx-dynamo': (2, 6)}
QUICK = {'LabelEncoder-FCN8sHead', 'Tapped-DUpsamplingHead'}  # one of each kind by every route


def cases():
    for family in FAMILIES:
        for route in ROUTES:
            slow = route in ('compile', 'onnx-dynamo') and family not in QUICK
            marks = [needs_torch(*NEEDED[route])] if route in NEEDED else []
            yield pytest.param(family, route, marks=[*marks, pytest.mark.slow] if slow else marks, id=f'{family}-{route}')


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(('family', 'route'), cases())
def test_exports(family, route):
    with torch.no_grad():
        deployed = ROUTES[route](family)
        for shape in OTHERS:
            expected, got = flat(build(family)(image(shape))), flat(deployed(image(shape)))
            assert [tuple(one.shape) for one in got] == [tuple(one.shape) for one in expected]
            for one, other in zip(got, expected, strict=True):
                assert (one - other).abs().max() <= 1e-4 * other.abs().max()


@needs_torch(2, 6)
@pytest.mark.filterwarnings('ignore')
def test_saved_graphs_load_where_only_torch_is(tmp_path):
    """A process that cannot import this package or OpenMMLab's runs an exported program and a traced module at another size."""
    input = image(OTHERS[1])
    with torch.no_grad():
        torch.save([input, build('LIPResNet')(input)[0]], tmp_path / 'tensors.pt')
        torch.jit.trace(build('LIPResNet'), image(EXAMPLE), check_trace=False).save(tmp_path / 'traced.pt')
    torch.export.save(exported('LIPResNet'), tmp_path / 'exported.pt2')
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['mmpool_ext', 'mmengine', 'mmcv', 'mmseg']))\n"
        'import torch\n'
        "input, expected = torch.load('tensors.pt')\n"
        "for network in (torch.jit.load('traced.pt'), torch.export.load('exported.pt2').module()):\n"
        '    with torch.no_grad(): output = network(input)[0]\n'
        '    assert output.shape == expected.shape and (output - expected).abs().max() <= 1e-4 * expected.abs().max()\n'
        "    print('same')\n"
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ['same', 'same']
