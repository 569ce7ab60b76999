"""The pyramid demo: both heads train alike, and the table and the picture come out."""

import sys

import demo
import demo_pyramid
import pytest
import torch
from make_shapes import make_shapes
from mmengine.config import Config
from mmengine.registry import DefaultScope

pytest.importorskip('mmseg')


def test_both_heads_get_the_same_network_data_and_schedule():
    ours, plain = (Config.fromfile(demo.CONFIGS / f'{config}.py') for config in demo_pyramid.ROWS.values())
    heads = [config.model.pop('decode_head') for config in (ours, plain)]
    assert [head.type for head in heads] == ['PyramidRepresentationHead', 'FCNHead']
    for key in ('in_channels', 'in_index', 'input_transform', 'channels', 'num_classes', 'norm_cfg'):
        assert heads[0][key] == heads[1][key]
    assert ours.to_dict() == plain.to_dict()


def test_table_and_picture(tmp_path, monkeypatch, capsys):
    from mmseg.registry import MODELS

    monkeypatch.setattr(demo, 'SHAPES', tmp_path / 'shapes')
    monkeypatch.setattr(demo_pyramid, 'WORK_DIR', tmp_path)
    monkeypatch.setattr(demo, 'train_and_test', lambda codebase, config, work_dir, bar, threads: dict(mIoU=40.0, boundary_mIoU=30.0))
    monkeypatch.setattr(sys, 'argv', ['demo_pyramid.py'])
    make_shapes(tmp_path / 'shapes', num_train=0, num_val=1, size=64)
    name = demo_pyramid.ROWS['pyramid']
    config = Config.fromfile(demo.CONFIGS / f'{name}.py')
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(config.model)
    (tmp_path / name).mkdir()
    meta = dict(dataset_meta=config.test_dataloader.dataset.metainfo.to_dict())
    torch.save(dict(state_dict=model.state_dict(), meta=meta), tmp_path / name / 'weights.pth')
    (tmp_path / name / 'last_checkpoint').write_text(str(tmp_path / name / 'weights.pth'))
    with DefaultScope.overwrite_default_scope('mmengine'):
        demo_pyramid.main()
    assert 'boundary mIoU' in capsys.readouterr().out
    assert (tmp_path / 'levels.png').stat().st_size > 1000
