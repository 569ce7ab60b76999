"""What a config may ask of a backbone whose ``type`` alone it changes, and what it is told otherwise."""

import pytest
import torch
from mmengine.registry import MODELS
from releases import HALF
from torch import nn

import mmpool_ext  # noqa: F401 registers the names
from mmpool_ext.backbones.pool import build_pool
from mmpool_ext.layers import PolynomialPool2d

POOL = dict(type='PolynomialPool2d')
# packages, arguments of a small form, whether it has normalisations
BACKBONES = {
    'LIPResNet': ('mmcv', dict(depth=14, base_channels=8), True),
    'LIPDenseNet': ('torchvision', dict(), True),
    'PPoolVGG': ('torchvision', dict(pool=POOL, depth=11, fc_channels=8), False),
    'PPoolResNet': ('torchvision', dict(pool=POOL, depth=18), True),
    'PPoolInceptionV2': ('mmcv', dict(pool=POOL), True),
    'PPoolXception': ('timm', dict(pool=POOL), True),
    'Repooled': ('mmseg', dict(backbone='mmseg.ResNet', depth=18, pool=POOL), True),
    'Tapped': ('mmseg', dict(backbone='mmseg.ResNet', depth=18, taps=['conv1']), True),
}


@pytest.fixture(params=BACKBONES)
def backbone(request):
    package, arguments, normed = BACKBONES[request.param]
    pytest.importorskip(package)
    return request.param, arguments, normed


def build(name, arguments, **kwargs):
    torch.manual_seed(0)
    return MODELS.build(dict(type=name, **{**arguments, **kwargs}))


@pytest.mark.parametrize('dtype', [torch.float32, HALF, torch.bfloat16])
@pytest.mark.parametrize('in_channels', [1, 3, 4, 6])
def test_any_image_any_norm_any_precision(backbone, in_channels, dtype):
    name, arguments, normed = backbone
    net = build(name, arguments, in_channels=in_channels, **(dict(norm_cfg=dict(type='SyncBN')) if normed else {}))
    kinds = {type(module).__name__ for module in net.modules()}
    assert ('SyncBatchNorm' in kinds) == normed
    assert 'BatchNorm2d' not in kinds
    net.eval()  # upstream's returns nothing
    with torch.no_grad():
        outputs = net.to(dtype)(torch.rand(1, in_channels, 48, 48).to(dtype))
    assert {output.dtype for output in outputs} == {dtype}
    assert all(output.isfinite().all() for output in outputs)


@pytest.mark.parametrize('dtype', [HALF, torch.bfloat16])
def test_autocast(backbone, dtype):
    name, arguments, _ = backbone
    net = build(name, arguments)
    with torch.autocast('cpu', dtype=dtype):
        outputs = net(torch.rand(2, 3, 64, 64))  # below, norms over two values make gradients of a million in float32 too
    assert all(output.isfinite().all() for output in outputs)
    sum(output.float().mean() for output in outputs).backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters() if parameter.grad is not None)


@pytest.mark.parametrize('name', ['LIPResNet', 'PPoolVGG'])
def test_torch_compile_of_any_torch_gives_the_same(name):
    """In one graph only from torch 2.4 on; before, compiled graphs end at the poolings."""
    package, arguments, _ = BACKBONES[name]
    pytest.importorskip(package)
    torch._dynamo.reset()
    net = build(name, arguments)
    net.eval()
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for got, expected in zip(torch.compile(net, backend='eager')(image), net(image), strict=True):
        torch.testing.assert_close(got, expected)


def test_group_norm_and_other_convolutions(backbone):
    name, arguments, normed = backbone
    norm = dict(norm_cfg=dict(type='GN', num_groups=2)) if normed else {}
    net = build(name, arguments, conv_cfg=dict(type='ConvWS'), **norm)
    kinds = {type(module).__name__ for module in net.modules()}
    assert 'ConvWS2d' in kinds
    assert ('GroupNorm' in kinds) == normed
    assert all(output.isfinite().all() for output in net(torch.rand(2, 3, 48, 48)))


def test_checkpointing_changes_no_gradient(backbone):
    name, arguments, _ = backbone
    gradients = []
    input = torch.rand(2, 3, 48, 48, dtype=torch.float64)
    for with_cp in (False, True):
        net = build(name, arguments, with_cp=with_cp).double()
        torch.manual_seed(0)  # of dropout
        outputs = net(input)
        torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])
        gradients.append({key: parameter.grad for key, parameter in net.named_parameters()})
    torch.testing.assert_close(*gradients)


def test_arguments_of_another_backbone_are_an_error_that_names_the_way_out(backbone):
    name, arguments, normed = backbone
    with pytest.raises(TypeError, match=rf'({name}|build_backbone): arguments must .*window_size.*_delete_=True'):
        build(name, arguments, window_size=7)
    if not normed:
        with pytest.raises(TypeError, match=rf'{name}: arguments must be among pool, depth.*, but got norm_cfg, norm_eval.*_delete_=True'):
            build(name, arguments, norm_cfg=dict(type='BN'), norm_eval=True)


@pytest.mark.parametrize('name', ['LIPResNet', 'LIPDenseNet', 'PPoolVGG', 'PPoolResNet', 'PPoolInceptionV2', 'PPoolXception'])
def test_a_checkpoint_of_another_image_fills_all_but_the_first_convolution(name, tmp_path):
    package, arguments, _ = BACKBONES[name]
    pytest.importorskip(package)
    trained = build(name, arguments)
    for parameter in trained.parameters():
        nn.init.constant_(parameter, 0.5)
    torch.save(trained.state_dict(), tmp_path / 'rgb.pth')
    net = build(name, arguments, in_channels=4, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'rgb.pth')))
    net.init_weights()
    fresh = [key for key, parameter in net.named_parameters() if not parameter.eq(0.5).all()]
    assert [net.get_parameter(key).shape[1] for key in fresh] == [4]


@pytest.mark.parametrize('depth', [18, 34])
def test_lip_in_basic_blocks_names_the_way(depth):
    pool = r"dict\(type='Repooled', backbone='ResNet', depth=.*, pool=dict\(type='LIPPool2d'\)\)"
    with pytest.raises(ValueError, match=rf'LIPResNet: depth must be one of .*{pool}, but got {depth}'):
        build('LIPResNet', dict(depth=depth))
    pytest.importorskip('mmseg')
    net = build('Repooled', dict(backbone='ResNet', depth=depth, pool=dict(type='LIPPool2d')))
    assert sum(type(module).__name__ == 'LIPPool2d' for module in net.modules()) == 8
    assert [output.shape[2] for output in net(torch.rand(1, 3, 65, 64))] == [17, 9, 5, 3]


@MODELS.register_module()
class ReturnsItsInput(nn.Module):
    def __init__(self, **kwargs):
        super().__init__()

    def forward(self, input):
        return input


@pytest.mark.parametrize('name', ['LIPResNet', 'LIPDenseNet', 'PPoolVGG', 'PPoolResNet', 'PPoolInceptionV2', 'PPoolXception', 'Repooled'])
def test_a_pool_of_the_wrong_size_is_an_error(name):
    package, arguments, _ = BACKBONES[name]
    pytest.importorskip(package)
    with pytest.raises(ValueError, match=rf'{name}: pool must keep the output size of what it replaces, but got .*ReturnsItsInput'):
        build(name, arguments, pool=dict(type='ReturnsItsInput'))


def test_a_pool_behind_the_blocks_is_checked_too():
    with pytest.raises(ValueError, match='LIPResNet: pool must keep the output size'):
        build('LIPResNet', BACKBONES['LIPResNet'][1], pool=dict(type='ReturnsItsInput'), stem_lip=False, pool_block_output=True)


def test_starts_are_nearest_to_what_was_there():
    starts = {kind: build_pool(POOL, 2, 2, 2, replaces=kind).side_branch.initial_alpha for kind in ('max', 'average', 'stride')}
    assert starts == dict(max=20, average=0.01, stride=0.01)
    authors = dict(POOL, alpha_range=(1, 50))
    assert build_pool(authors, 2, 2, 2, replaces='average').side_branch.initial_alpha == pytest.approx(1.01)
    own = dict(POOL, initial_alpha=7)
    assert {build_pool(own, 2, 2, 2, replaces=kind).side_branch.initial_alpha for kind in starts} == {7}
    assert isinstance(build_pool(dict(type=PolynomialPool2d), 2, 2, 2, replaces='average'), PolynomialPool2d)
    build_pool(dict(type='LIPPool2d'), 2, 2, 2, replaces='average')  # no such argument there
