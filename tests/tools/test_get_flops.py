"""Costs agree with the papers' tables, each counted as its paper counts."""

from pathlib import Path

import pytest
import torch

get_flops = pytest.importorskip('get_flops')
from mmengine.analysis import ActivationAnalyzer, FlopAnalyzer  # noqa: E402
from mmengine.config import Config  # noqa: E402

CONFIGS = Path(__file__).parents[2] / 'configs'
CLASSIFIER = """
_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(backbone=dict(type='LIPResNet', init_cfg=None, {}))
"""
WINDOWS = 64 * 56**2 + (128 + 256) * 28**2 + (256 + 512) * 14**2 + (512 + 1024) * 7**2  # outputs of LIP-ResNet-50's seven poolings


@pytest.mark.parametrize(
    ('arguments', 'parameters', 'multiply_adds', 'windows'),
    [
        ('', 23.9, 5.33, WINDOWS),
        ("pool=dict(type='AveragePool2d')", 22.8, 3.82, WINDOWS),
        ('stage_with_lip=(False,) * 4, stem_lip=False', 25.6, 4.12, 64 * 56**2),  # the stem's max pooling
    ],
    ids=['bottleneck-128', 'average', 'strided'],
)
def test_lip_paper_table_1(tmp_path, arguments, parameters, multiply_adds, windows):
    """LIP paper, Table 1: million parameters, 10^9 operations at 224 x 224."""
    pytest.importorskip('mmpretrain')
    config = tmp_path / 'resnet.py'
    config.write_text(CLASSIFIER.format(arguments))
    counted = get_flops.costs(config)
    assert counted['shape'] == [224, 224]
    assert round(counted['parameters'] / 1e6, 1) == parameters
    assert counted['lip'] / 1e9 == pytest.approx(multiply_adds, rel=0.002)
    assert counted['pooling'] == 9 * windows
    assert 'dupsampling' not in counted


@pytest.mark.parametrize(
    ('config', 'paper'),
    [
        ('dupsampling_r50-os16_4xb12-30k_voc12-513x513', 0.80),
        ('dupsampling_r50-os16-b1u2c3_4xb12-30k_voc12-513x513', 1.15),
        ('bilinear_r50-os16-b1u2c3_4xb12-30k_voc12-513x513', 5.53),
        ('dupsampling_x65-os16-mfb1u16c3_2xb16-30k_voc12-513x513', 1.98),
    ],
)
def test_dupsampling_paper_tables_2_and_3(config, paper):
    """The decoder's 10^9 FLOPS, 2 a multiply-add."""
    pytest.importorskip('mmseg')
    pytest.importorskip('timm')
    counted = get_flops.costs(CONFIGS / 'dupsampling' / f'{config}.py')
    assert counted['shape'] == [513, 513]
    assert round(counted['dupsampling'] / 1e9, 2) == paper


def test_mmengines_columns_are_mmengines():
    """A trace that fills all columns at once gives what mmengine's two analyzers give, one after the other."""
    pytest.importorskip('mmseg')
    config = CONFIGS / 'shapes' / 'fcn_ppool-unet_1xb4-1000i_shapes-160x160.py'
    counted = get_flops.costs(config, (64, 96))
    network, image = get_flops.build(Config.fromfile(config)), torch.rand(1, 3, 64, 96)
    expected = [analyzer(network, image).unsupported_ops_warnings(False).total() for analyzer in (FlopAnalyzer, ActivationAnalyzer)]
    assert [counted['multiply_adds'], counted['activations']] == expected
    assert counted['pooling'] > 0


def test_detector_and_its_default_shape():
    pytest.importorskip('mmdet')
    config = CONFIGS / 'shapes' / 'faster-rcnn_lip-r14_fpn_1xb8-400i_shapes-160x160.py'
    counted = get_flops.costs(config)
    assert counted['shape'] == [160, 160]
    lips = 32 * 40**2 + (64 + 128) * 20**2 + (128 + 256) * 10**2 + (256 + 512) * 5**2
    assert counted['pooling'] == 9 * lips + 3 * 3 * 64  # and FPN's 1x1 max pooling for its coarsest level
    assert get_flops.network_shape(Config.fromfile(CONFIGS / 'lip' / 'retinanet_lip-r50_fpn_2x_coco.py')) == (800, 1344)


@pytest.mark.parametrize(('type', 'offsets'), [('DCN', 18), ('DCNv2', 27)])
def test_deformable_convolutions_count_as_plain_ones_with_their_offsets(tmp_path, type, offsets):
    pytest.importorskip('mmpretrain')
    pytest.importorskip('mmcv.ops')
    counted = []
    for index, arguments in enumerate(('', f"dcn=dict(type='{type}', deform_groups=1), stage_with_dcn=(False, False, False, True)")):
        config = tmp_path / f'{index}.py'
        config.write_text(CLASSIFIER.format(f'depth=26, {arguments}'))
        counted.append(get_flops.costs(config, (128, 128)))
    plain, deformable = counted
    for column, expected in dict(multiply_adds=9 * 512 * offsets * 4**2, lip=9 * 512 * offsets * 4**2, activations=offsets * 4**2).items():
        assert deformable[column] - plain[column] == expected  # the one 3x3 of the last stage, at 4 x 4


def test_a_pooling_of_one_tensor_costs_what_max_pooling_of_its_windows_does(tmp_path):
    pytest.importorskip('mmseg')
    counted = []
    for pool in ('SoftPool2d', 'MaximumPool2d'):
        config = tmp_path / f'{pool}.py'
        base = CONFIGS / 'shapes' / 'fcn_ppool-unet_1xb4-1000i_shapes-160x160.py'
        config.write_text(f"_base_ = {str(base)!r}\nmodel = dict(backbone=dict(pool=dict(_delete_=True, type='{pool}')))\n")
        counted.append(get_flops.costs(config, (64, 64)))
    assert counted[0]['pooling'] == counted[1]['pooling'] > 0


def test_table_and_errors(monkeypatch, capsys):
    pytest.importorskip('mmseg')
    config = str(CONFIGS / 'shapes' / 'fcn_r18_1xb8-400i_shapes-160x160.py')
    monkeypatch.setattr('sys.argv', ['get_flops.py', config, '--shape', '64', '96'])
    get_flops.main()
    printed = capsys.readouterr().out
    assert 'fcn_r18_1xb8-400i_shapes-160x160' in printed
    assert '64 x 96' in printed
    own_size = Config(dict(model=dict(), test_dataloader=dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile')]))))
    with pytest.raises(ValueError, match='get_flops: shape must be given for a config whose images keep their own size, but got none'):
        get_flops.network_shape(own_size)
    monkeypatch.setattr(get_flops, 'KERNELS', set())
    with pytest.raises(SystemExit):
        get_flops.main()
    assert 'get_flops: the ops must be compiled, but got no lip_pool2d, polynomial_pool2d, lan_pool2d, soft_pool2d' in capsys.readouterr().err


def test_the_shape_is_found_in_wrappers_and_new_style_configs():
    from mmcv.transforms import CenterCrop, Resize

    def config(*steps):
        inner = dict(type='Any', pipeline=list(steps))
        return Config(dict(model=dict(type='Any'), test_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=[inner, inner]))))

    assert get_flops.network_shape(config(dict(type=Resize, scale=(64, 32)))) == (32, 64)
    assert get_flops.network_shape(config(dict(type='mmcv.Resize', scale=(64, 32)))) == (32, 64)
    assert get_flops.network_shape(config(dict(type=CenterCrop, crop_size=48))) == (48, 48)
