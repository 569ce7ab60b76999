import copy
import pickle
from contextlib import nullcontext

import pytest
import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.model import BaseModel, ExponentialMovingAverage, PretrainedInit
from mmengine.registry import MODELS
from mmengine.runner import Runner, save_checkpoint
from mmengine.runner.checkpoint import load_state_dict
from releases import needs_torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.testing import assert_close

import mmpool_ext
from mmpool_ext import LIPResNet
from mmpool_ext.layers import LIPPool2d

AVERAGE = dict(pool=dict(type='AveragePool2d'))
DPP = dict(pool=dict(type='DetailPreservingPool2d'))
DPP_ORIGINAL = dict(DPP, stem_lip=False, pool_block_output=True)
PROJECTION = dict(type='ProjectionLogit')
STRIDED = dict(stage_with_lip=(False,) * 4, stem_lip=False)


def small(**kwargs):
    return LIPResNet(**dict(dict(depth=14, base_channels=8), **kwargs))


def bottleneck(mid_channels):
    return dict(logit=dict(type='BottleneckLogit', mid_channels=mid_channels))


def lips(network):
    return [name for name, module in network.named_modules() if isinstance(module, LIPPool2d)]


# LIP paper: Tables 1, 3 and 4. Million parameters and 10^9 multiply-adds at 224x224, classifier included.
PAPER = {
    'Table 1, strided': (50, STRIDED, 25.6, 4.12),
    'Table 1, average': (50, AVERAGE, 22.8, 3.82),
    'Table 1, DPP, baseline structure': (50, DPP, 22.8, 3.83),
    'Table 1, DPP, original structure': (50, DPP_ORIGINAL, 25.6, 6.59),
    'Table 1, bottleneck-64': (50, bottleneck(64), 23.2, 4.65),
    'Table 1, bottleneck-128': (50, {}, 23.9, 5.33),
    'Table 1, bottleneck-256': (50, bottleneck(256), 25.8, 7.61),
    'Table 3, B': (50, dict(stem_lip=False), 23.8, 4.87),
    'Table 3, C': (50, dict(stem_lip=False, stage_with_lip=(False, False, True, True)), 23.7, 4.26),
    'Table 3, D': (50, dict(stem_lip=False, stage_with_lip=(False, False, False, True)), 23.9, 4.11),
    'Table 4, ResNet-101': (101, STRIDED, 44.5, 7.85),
    'Table 4, ResNet-152': (152, STRIDED, 60.2, 11.58),
    'Table 4, LIP-ResNet-101': (101, {}, 42.9, 9.06),
}


def cost(network, channels=2048):
    """Parameters and multiply-adds at 224x224, a linear classifier of 1000 included.

    Counted by mmengine's default handlers, which do not know our ops. Traced at 64x64: every map there has exactly (64 / 224)^2 of the pixels.
    """
    counter = FlopAnalyzer(network.eval(), torch.zeros(1, 3, 64, 64)).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    parameters = sum(parameter.numel() for parameter in network.parameters()) + (channels + 1) * 1000
    return parameters, counter.total() * (224 / 64) ** 2 + channels * 1000


@pytest.mark.parametrize('row', PAPER.values(), ids=PAPER)
def test_cost_of_the_papers_tables(row):
    depth, arguments, parameters, multiply_adds = row
    expected = parameters * 1e6, multiply_adds * 1e9
    tolerance = 0.01 if arguments in (DPP, DPP_ORIGINAL) else 0.005  # the paper counts what these poolings compute
    assert cost(LIPResNet(depth, out_indices=(3,), **arguments)) == pytest.approx(expected, rel=tolerance)


def test_cost_of_the_projection_form_is_not_quite_the_papers():
    """Table 1 has 24.7M and 4.78G; the text does not say where the rest is. 4.64G by mmengine's count here, 4.63G by the paper's."""
    parameters, multiply_adds = cost(LIPResNet(50, out_indices=(3,), logit=dict(type='ProjectionLogit')))
    assert parameters == pytest.approx(24.53e6, rel=0.0005)
    assert multiply_adds == pytest.approx(4.64e9, rel=0.002)


def test_original_structure_of_detail_preserving_pooling():
    """Blocks at stride 1, their output pooled after the ReLU; weights of the plain network fit, and odd sizes are its sizes."""
    plain, network = small(**STRIDED).eval(), small(stem_lip=False, pool_block_output=True, **AVERAGE).eval()
    network.load_state_dict(plain.state_dict())
    image = torch.rand(1, 3, 69, 83)
    outputs = network(image)
    assert [output.shape for output in outputs] == [output.shape for output in plain(image)]
    for module in [plain.layer2[0], plain.layer3[0], plain.layer4[0]]:
        module.conv2.stride = module.downsample[0].stride = (1, 1)
    for index in (1, 2, 3):
        expected = nn.functional.avg_pool2d(getattr(plain, f'layer{index + 1}')(outputs[index - 1]), 2, ceil_mode=True)
        assert_close(outputs[index], expected)
    assert lips(small(pool_block_output=True)) == ['stem_pool', 'layer2.0.output_pool', 'layer3.0.output_pool', 'layer4.0.output_pool']


def test_seven_lips_and_the_shared_trunk():
    network = small()
    expected = ['stem_pool'] + [f'layer{i}.0.{branch}' for i in (2, 3, 4) for branch in ('pool2', 'downsample_pool')]
    assert lips(network) == expected
    for i in (2, 3, 4):
        block = getattr(network, f'layer{i}')[0]
        calls = []
        block.logit_trunk.register_forward_hook(lambda module, args, out, calls=calls: calls.append(args[0].shape[1]))
        network(torch.randn(1, 3, 64, 64))
        assert calls == [block.conv1.in_channels]


def test_projection_form_has_a_1x1_in_the_stem_and_no_trunk():
    network = small(logit=dict(type='ProjectionLogit'))
    assert network.stem_pool.logit.conv.kernel_size == (1, 1)
    assert network.layer2[0].logit_trunk is None
    assert network.layer2[0].pool2.logit.conv.in_channels == 16
    assert len(lips(network)) == 7


@pytest.mark.parametrize('size', [(64, 64), (65, 97), (32, 50)])
@pytest.mark.parametrize('out_indices', [(0, 1, 2, 3), (1, 3)])
def test_channels_and_strides(size, out_indices):
    network = small(out_indices=out_indices)
    outputs = network(torch.randn(2, 3, *size))
    assert isinstance(outputs, tuple)
    assert network.out_strides == tuple(4 * 2**index for index in out_indices)
    for index, channels, output in zip(out_indices, network.out_channels, outputs, strict=True):
        stride = 4 * 2**index
        assert output.shape == (2, channels, *(-(-edge // stride) for edge in size))


@pytest.mark.parametrize(
    'arguments',
    [{}, dict(deep_stem=True), dict(logit=dict(type='ProjectionLogit')), STRIDED, DPP, DPP_ORIGINAL, dict(depth=26, with_cp=True)],
)
def test_every_parameter_gets_a_gradient(arguments):
    """Zero-initialised layers stop some gradients at first, none after a step."""
    network = small(**arguments)
    network.init_weights()
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    for step in range(3):
        outputs = network(torch.randn(2, 3, 64, 64).requires_grad_())
        optimizer.zero_grad()
        torch.autograd.backward(outputs, [torch.randn_like(output) for output in outputs])
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert step < 2 or parameter.grad.abs().max() > 0, name
        optimizer.step()


@pytest.mark.parametrize('checkpoint', [False, True])
@pytest.mark.parametrize('strides', [(1, 2, 2, 2), (1, 2, 1, 1)])
def test_initialised_lip_equals_average_pooling(tmp_path, checkpoint, strides):
    arguments = dict(strides=strides, dilations=(1, 1, 2, 4) if strides[-1] == 1 else (1, 1, 1, 1), contract_dilation=True)
    average = small(**AVERAGE, **arguments)
    average.init_weights()
    init_cfg = None
    if checkpoint:
        save_checkpoint(average.state_dict(), str(tmp_path / 'average.pth'))
        init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'average.pth'))
    lip = small(init_cfg=init_cfg, **arguments)
    lip.init_weights()
    if not checkpoint:
        lip.load_state_dict(average.state_dict(), strict=False)
    for network in (lip, average):
        network.eval()
        nn.init.ones_(network.layer4[0].norm3.weight)  # let the residual branch show
    image = torch.randn(2, 3, 64, 96)
    for ours, expected in zip(lip(image), average(image), strict=True):
        assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_dilated_network_is_the_strided_network_seen_at_every_pixel():
    """D8 (stride 1 and dilation in the last two stages): its every fourth pixel is the stride-32 network's, away from the border."""
    strided = small(depth=26, **AVERAGE)
    dilated = small(depth=26, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True, **AVERAGE)
    strided.init_weights()
    for block in (module for module in strided.modules() if hasattr(module, 'norm3')):
        nn.init.ones_(block.norm3.weight)
    dilated.load_state_dict(strided.state_dict())
    image = torch.randn(1, 3, 512, 512)
    expected, ours = strided.eval()(image)[-1], dilated.eval()(image)[-1]
    assert ours.shape[-2:] == (64, 64)
    assert_close(ours[..., ::4, ::4][..., 4:-4, 4:-4], expected[..., 4:-4, 4:-4], rtol=1e-4, atol=1e-4)


def test_weights_of_the_strided_network_fit_the_dilated_one():
    strided = small()
    dilated = small(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
    dilated.load_state_dict(strided.state_dict())
    assert lips(dilated) == lips(strided)
    block = dilated.layer4[0]
    assert (block.pool2.stride, block.pool2.dilation, block.logit_trunk.conv2.dilation) == (1, 4, (4, 4))


def test_multi_grid():
    network = small(depth=26, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), multi_grid=(2, 4))
    assert network.layer4[0].pool2.dilation == 2
    assert network.layer4[1].conv2.dilation == (4, 4)


def test_keys_are_torchvisions():
    resnet = pytest.importorskip('torchvision').models.resnet50()
    state = {name: tensor for name, tensor in resnet.state_dict().items() if not name.startswith('fc.')}
    LIPResNet(50, **STRIDED).load_state_dict(state)
    ours = LIPResNet(50).state_dict()
    changed = {name for name, tensor in state.items() if name not in ours or ours[name].shape != tensor.shape}
    assert changed == {f'layer{i}.0.conv2.weight' for i in (2, 3, 4)}
    image = torch.randn(1, 3, 64, 64)
    network = LIPResNet(50, out_indices=(3,), **STRIDED)
    network.load_state_dict(state)
    features = nn.Sequential(*list(resnet.eval().children())[:-2])(image)
    assert_close(network.eval()(image)[0], features, rtol=1e-4, atol=1e-4)


def test_checkpoint_of_a_plain_resnet(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr('mmpool_ext.backbones.checkpoint.print_log', lambda line, **_: lines.append(line))
    plain = small(**STRIDED)
    plain.init_weights()
    path = str(tmp_path / 'plain.pth')
    save_checkpoint(plain.state_dict(), path)
    network = small(frozen_stages=1, norm_eval=True, init_cfg=dict(type='Pretrained', checkpoint=path))
    frozen = r'LIPResNet: frozen tensors start fresh and will not be trained: stem_pool.logit.conv.weight, stem_pool.logit.norm.bias'
    with pytest.warns(UserWarning, match=frozen):
        network.init_weights()
    want = {k: v.shape for k, v in network.state_dict().items() if not k.endswith(('num_batches_tracked', 'fresh_tensors'))}
    have = {k: v.shape for k, v in plain.state_dict().items() if not k.endswith('num_batches_tracked')}
    taken = sum(have.get(name) == shape for name, shape in want.items())
    unused = len(have) - taken
    assert lines == [f'LIPResNet: {taken} tensors taken over, {len(want) - taken} not found and start fresh, {unused} of the checkpoint unused']
    assert unused == 3  # the 3x3s that a 1x1 replaces
    assert_close(network.layer3[0].conv1.weight, plain.layer3[0].conv1.weight)

    fresh = {f'layer{i}.0.bn2' for i in (2, 3, 4)}
    network.train()
    training = {name for name, module in network.named_modules() if isinstance(module, _BatchNorm) and module.training}
    assert training == fresh  # behind convolutions that the checkpoint did not fill
    network.load_state_dict(small().state_dict())
    network.train()
    assert not any(module.training for module in network.modules() if isinstance(module, _BatchNorm))


class Trained(BaseModel):
    """Sums up what a network returns."""

    def __init__(self, **kwargs):
        super().__init__()
        self.backbone = small(norm_eval=True, frozen_stages=1, **kwargs)

    def forward(self, inputs, mode='tensor'):
        return dict(loss=sum(output.square().mean() for output in self.backbone(inputs)))


def train(work_dir, max_iters, init_cfg=None, **kwargs):
    generator = torch.Generator().manual_seed(0)
    runner = Runner(
        Trained(init_cfg=init_cfg),
        str(work_dir),
        train_dataloader=dict(
            dataset=[dict(inputs=torch.randn(3, 64, 64, generator=generator)) for _ in range(8)],
            batch_size=2,
            num_workers=0,
            collate_fn=dict(type='default_collate'),
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=max_iters),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2)),
        randomness=dict(seed=0),
        log_level='ERROR',
        **kwargs,
    )
    return runner.train()


@pytest.mark.parametrize('way', ['init_cfg', 'load_from'])
def test_norms_that_start_fresh_are_trained_also_after_a_resume(way, tmp_path, monkeypatch):
    """4 iterations are 2 and a resume of 2, whether the plain network's checkpoint comes by ``init_cfg`` or by ``load_from``."""
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')  # mmengine 0.10.7 reads its checkpoints by pickle
    lines = []
    monkeypatch.setattr('mmpool_ext.backbones.checkpoint.print_log', lambda line, **_: lines.append(line))
    plain = small(**STRIDED)
    plain.init_weights()
    path = str(tmp_path / 'plain.pth')
    prefix = '' if way == 'init_cfg' else 'backbone.'
    save_checkpoint({prefix + name: tensor for name, tensor in plain.state_dict().items()}, path)
    start = dict(init_cfg=dict(type='Pretrained', checkpoint=path)) if way == 'init_cfg' else dict(load_from=path)
    frozen = pytest.warns(UserWarning, match='frozen tensors start fresh') if way == 'init_cfg' else nullcontext()
    with frozen:
        whole = train(tmp_path / 'whole', 4, **start)
    assert sum('tensors taken over' in line for line in lines) == 1
    fresh = {f'layer{i}.0.bn2' for i in (2, 3, 4)}
    moved = {name for name, module in whole.backbone.named_modules() if isinstance(module, _BatchNorm) and module.num_batches_tracked > 0}
    assert moved == fresh
    lines.clear()
    resumed = train(tmp_path / 'resumed', 4, load_from=str(tmp_path / 'whole' / 'iter_2.pth'), resume=True)
    assert sum('LIPResNet, loading a checkpoint: ' in line for line in lines) == 1
    for (name, ours), theirs in zip(resumed.state_dict().items(), whole.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def test_a_whole_checkpoint_of_such_a_training_leaves_no_norm_to_train(tmp_path):
    """By ``init_cfg`` it starts another training, in which every tensor is a loaded one."""
    network = small(norm_eval=True)
    load_state_dict(network, small(**STRIDED).state_dict())
    assert 'fresh_tensors' in network.state_dict()
    save_checkpoint(network.state_dict(), str(tmp_path / 'trained.pth'))
    tuned = small(norm_eval=True, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'trained.pth')))
    tuned.init_weights()
    tuned.train()
    assert not any(module.training for module in tuned.modules() if isinstance(module, _BatchNorm))
    assert 'fresh_tensors' not in tuned.state_dict()
    part = small(norm_eval=True, out_indices=(0, 1, 2))
    load_state_dict(part, network.state_dict())  # as load_from
    part.train()
    assert {name for name, module in part.named_modules() if isinstance(module, _BatchNorm) and module.training} == {'layer2.0.bn2', 'layer3.0.bn2'}


@pytest.mark.parametrize('update_buffers', [False, True])
def test_average_of_weights(update_buffers):
    """mmengine's EMA takes the keys when the run begins, before ``load_from``, whichever tensors that fills."""
    network = small(norm_eval=True)
    load_state_dict(network, small(**STRIDED).state_dict())
    average = ExponentialMovingAverage(network, update_buffers=update_buffers)
    network.load_state_dict(small().state_dict())
    for _ in range(2):
        average.update_parameters(network)
    weights = [{key: value for key, value in net.state_dict().items() if 'fresh' not in key} for net in (average.module, network)]
    assert_close(*weights, rtol=0, atol=0)


def test_a_plain_state_dict_has_no_note():
    """The note is for resumes of trainings that have fresh norms alone."""
    assert not any('fresh' in name for name in small(norm_eval=True).state_dict())
    network = small(norm_eval=True)
    network.load_state_dict(small().state_dict())
    assert network.state_dict().keys() == small().state_dict().keys()


def test_pretrained_may_be_a_class(tmp_path):
    save_checkpoint(small(**STRIDED).state_dict(), str(tmp_path / 'plain.pth'))
    networks = []
    for type in ('Pretrained', PretrainedInit):
        torch.manual_seed(0)
        networks.append(small(init_cfg=dict(type=type, checkpoint=str(tmp_path / 'plain.pth'))))
        networks[-1].init_weights()
    assert_close(networks[0].state_dict(), networks[1].state_dict(), rtol=0, atol=0)


def test_checkpoint_in_another_layout(tmp_path):
    torch.save(dict(model=small().state_dict(), epoch=5), tmp_path / 'nested.pth')
    network = small(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'nested.pth')))
    with pytest.raises(ValueError, match=r"LIPResNet: the checkpoint must share at least one tensor .* begins with \['model', 'epoch'\]"):
        network.init_weights()


def test_windows_and_logit_of_the_pools_config():
    wide = small(pool=dict(type='AveragePool2d', kernel_size=5, padding=2))
    assert {pool.kernel_size for pool in wide.modules() if type(pool).__name__ == 'AveragePool2d'} == {(5, 5)}
    logit = dict(type='SimplifiedLogit', gate_scale=None)
    inside, beside = small(pool=dict(type='LIPPool2d', logit=logit)), small(logit=logit)
    assert str(inside) == str(beside)
    assert {inside.get_submodule(name).logit.gate_scale for name in lips(inside)} == {None}


def test_checkpoint_with_nothing_in_common(tmp_path):
    save_checkpoint({'backbone.conv1.weight': torch.zeros(1)}, str(tmp_path / 'other.pth'))
    network = small(pretrained=str(tmp_path / 'other.pth'))
    with pytest.raises(ValueError, match=r"LIPResNet: the checkpoint must share at least one tensor .*begins with \['backbone.conv1.weight'\]"):
        network.init_weights()


@pytest.mark.parametrize('deep_stem', [False, True])
@pytest.mark.parametrize('frozen_stages', [0, 2])
def test_freezing(deep_stem, frozen_stages):
    network = small(frozen_stages=frozen_stages, deep_stem=deep_stem)
    assert network.train() is network
    stem = ('stem.', 'stem_pool.') if deep_stem else ('conv1.', 'bn1.', 'stem_pool.')
    frozen = stem + tuple(f'layer{i + 1}.' for i in range(frozen_stages))
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad != name.startswith(frozen), name
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm):
            assert module.training != f'{name}.'.startswith(frozen), name


def test_norm_eval_and_eval():
    network = small(norm_eval=True).train()
    assert not any(module.training for module in network.modules() if isinstance(module, _BatchNorm))
    assert network.stem_pool.training
    assert not network.eval().training


def test_zero_init_residual():
    network = small()
    network.init_weights()
    assert not network.layer2[0].norm3.weight.any()
    network = small(zero_init_residual=False)
    network.init_weights()
    assert network.layer2[0].norm3.weight.all()


def test_recomputation_changes_nothing():
    network, image = small(), torch.randn(2, 3, 64, 64)
    recomputing = small(with_cp=True)
    recomputing.load_state_dict(network.state_dict())
    grads = []
    for net in (network, recomputing):
        x = image.clone().requires_grad_()
        out = net(x)[-1]
        out.backward(torch.ones_like(out))
        grads.append(x.grad)
    assert_close(*grads)


def test_unused_stages_are_not_built():
    network = small(out_indices=(0, 1))
    assert not hasattr(network, 'layer3')
    assert network.out_channels == (32, 64)


def test_other_norm_layers():
    assert small(norm_cfg=dict(type='GN', num_groups=4)).layer1[0].norm1_name == 'gn1'
    network = nn.SyncBatchNorm.convert_sync_batchnorm(small())
    assert isinstance(network.layer2[0].norm2, nn.SyncBatchNorm)
    assert isinstance(network.layer2[0].logit_trunk.norm1, nn.InstanceNorm2d)


def test_plugins_chain_at_their_places():
    plugin = dict(cfg=dict(type='ContextBlock', ratio=0.25), stages=(False, True, True, False), position='after_conv3')
    network = small(depth=26, plugins=[plugin, dict(plugin, cfg=dict(type='ContextBlock', ratio=0.5, postfix='_b'))])
    assert not network.layer1[0].plugin_names['after_conv3']
    assert len(network.layer2[1].plugin_names['after_conv3']) == 2
    network(torch.randn(1, 3, 64, 64))


def test_deformable_convolutions_stay_out_of_lip_blocks():
    """The D of "MD": the 3x3s of the last three stages; LIP blocks have none (27 in LIP-ResNet-101)."""
    deform = pytest.importorskip('mmcv.ops').DeformConv2d
    network = LIPResNet(101, base_channels=4, dcn=dict(type='DCN', deform_groups=1), stage_with_dcn=(False, True, True, True))
    assert sum(isinstance(module, deform) for module in network.modules()) == 27


@pytest.mark.parametrize('type', ['DCN', 'DCNv2'])
def test_deformable_convolutions_start_undeformed(type):
    pytest.importorskip('mmcv.ops')
    network = small(depth=26, dcn=dict(type=type, deform_groups=1), stage_with_dcn=(False, True, True, True))
    network.init_weights()
    offsets = [parameter for name, parameter in network.named_parameters() if 'conv_offset' in name]
    assert len(offsets) == 6
    assert not any(parameter.any() for parameter in offsets)
    assert network.layer2[1].conv2.weight.any()


def test_copies_and_pickles():
    network, image = small().eval(), torch.randn(1, 3, 64, 64)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert_close(other(image)[-1], network(image)[-1])


def test_average_class_object_and_dotted_name():
    for name in ('LIPResNet', 'mmpool_ext.LIPResNet', LIPResNet):
        assert type(MODELS.build(dict(type=name, depth=14, base_channels=8))) is LIPResNet
    assert len(lips(small(pool=dict(type=LIPPool2d)))) == 7
    assert mmpool_ext.LIPResNet is LIPResNet


@needs_torch(2, 4)
def test_compiles_in_one_graph():
    network, image = small().eval(), torch.randn(1, 3, 64, 64)
    compiled = torch.compile(network, fullgraph=True, backend='eager')
    assert_close(compiled(image)[-1], network(image)[-1], rtol=1e-4, atol=1e-4)


BAD = [
    (dict(depth=18), r'LIPResNet: depth must be one of \(14, 26, 50, 101, 152\).*, but got 18'),
    (dict(num_stages=5), r'num_stages must be in 1..4, but got 5'),
    (dict(strides=(1, 2)), r'strides must have num_stages = 4 entries, but got \(1, 2\)'),
    (dict(dilations=(1, 2)), r'dilations must have num_stages = 4 entries, but got \(1, 2\)'),
    (dict(stage_with_lip=(True,)), r'stage_with_lip must have num_stages = 4 entries, but got \(True,\)'),
    (dict(dcn=dict(type='DCN'), stage_with_dcn=(True,)), r'stage_with_dcn must have num_stages = 4 entries'),
    (dict(out_indices=(0, 4)), r'out_indices must name stages in 0..3, but got \(0, 4\)'),
    (dict(out_indices=()), r'out_indices must name stages in 0..3, but got \(\)'),
    (dict(frozen_stages=5), r'frozen_stages must be in -1..4, but got 5'),
    (dict(style='tensorflow'), r"style must be 'pytorch' or 'caffe', but got 'tensorflow'"),
    (dict(strides=(1, 2, 1, 1), pool_block_output=True), r'strides must be 2 where pool_block_output pools, but got \(1, 2, 1, 1\)'),
    (dict(style='caffe'), r"style must be 'pytorch' where a LIP takes the place of the strided convolution, but got 'caffe'"),
    (dict(avg_down=True), r'avg_down must be False where a LIP downsamples the shortcut, but got True'),
    (dict(pool=dict(type='LIPPol2d')), r"LIPResNet: pool must have a registered type, but got 'LIPPol2d'; close to it: LIPPool2d"),
    (dict(logit=dict(type='ProjektionLogit')), r'LIPResNet: logit must have a registered type, .*; close to it: ProjectionLogit'),
    (dict(logit=dict(type='WideLogit')), r"LIPResNet: logit must have a registered type, but got 'WideLogit'"),
    (dict(logit=dict(type='ProjectionLogit'), **AVERAGE), r'logit must be None for a network without LIPPool2d'),
    (dict(logit=PROJECTION, pool=dict(type='LIPPool2d', logit=PROJECTION)), r"logit must be None beside a logit in pool, but got {'type': 'Proj"),
    (dict(pool=dict(type='AveragePool2d', stride=7)), r'LIPResNet: pool must keep the output size of what it replaces, but got'),
    (dict(pool=dict(type='AveragePool2d', kernel_size=5)), r'LIPResNet: pool must keep the output size of what it replaces, but got'),
    (dict(stem_logit=dict(type='ProjectionLogit'), stem_lip=False), r'stem_logit must be None for a stem without LIPPool2d'),
    (dict(pretrained='a.pth', init_cfg=dict(type='Kaiming')), r'pretrained must be None beside init_cfg, but got a.pth'),
    (dict(multi_grid=(1,), depth=26), r'multi_grid must have at least 2 entries, but got \(1,\)'),
    (dict(plugins=[dict(cfg={}, stages=(True,), position='after_conv1')]), r'plugins must give num_stages = 4 entries in stages, but got \(True,\)'),
    (dict(plugins=[dict(cfg={}, position='first')]), r"plugins must have position 'after_conv1', .*but got 'first'"),
]


@pytest.mark.parametrize(('arguments', 'message'), BAD)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)


def test_strided_network_may_be_caffe_and_average_down():
    small(style='caffe', avg_down=True, **STRIDED).eval()(torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize(('strides', 'least'), [((1, 2, 2, 2), 32), ((1, 2, 1, 1), 16)])
def test_small_image(strides, least):
    network = small(strides=strides).eval()
    network(torch.randn(1, 3, least, least))
    with pytest.raises(ValueError, match=rf'LIPResNet: image must be at least {least} pixels high and wide, but got \({least}, {least - 1}\)'):
        network(torch.randn(1, 3, least, least - 1))
