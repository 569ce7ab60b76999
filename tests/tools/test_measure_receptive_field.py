"""Fields of known size around objects of known boxes, and a detector from config and checkpoint to a JSON file."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip('mmdet')
import measure_receptive_field
from demo import CONFIGS
from make_shapes import make_shapes
from visualize_lip import load_model

INSTANCES = [dict(bbox=[16, 16, 32, 48], bbox_label=1, ignore_flag=0), dict(bbox=[40, 8, 64, 24], bbox_label=0, ignore_flag=0)]
CROWD = dict(bbox=[0, 0, 64, 64], bbox_label=0, ignore_flag=1)
INFO = dict(img_path='x', width=64, height=64, instances=[*INSTANCES, CROWD])


@pytest.fixture
def squares(monkeypatch):
    """The class activation map is the mean over squares of 17 pixels around multiples of 8: so are its fields."""

    def look(model, batch, class_index, stage):
        inputs = batch.clone().requires_grad_()
        return inputs, F.avg_pool2d(inputs, 17, 8, 8)[0, 0], class_index, {}

    monkeypatch.setattr(measure_receptive_field, 'look', look)
    monkeypatch.setattr(measure_receptive_field, 'load_image', lambda model, path: (np.zeros((64, 64, 3)), torch.zeros(1, 1, 64, 64)))


def test_shares_and_radii_are_those_of_the_squares(squares):
    first, second = measure_receptive_field.fields_of(None, INFO, -1)  # the crowd is no object
    # The first object's middle is (24, 32), a cell's middle: rows 24..40 and columns 16..32, of which its box has all rows and 16 of 17 columns.
    assert first[1] == pytest.approx(16 / 17)
    # Beside it lies (40, 32): rows 24..40 and columns 32..48; the boxes have none of it. The second object ends at row 24.
    assert first[2] == pytest.approx(0)
    # The second's middle is (52, 16), whose cell's is (56, 16): rows 8..24, columns 48..63.
    assert second[1] == pytest.approx(16 / 17)
    # Beside it lies (28, 16), whose cell's middle is (32, 16): rows 8..24, columns 24..40; the boxes have 9 rows of 8 columns, and 16 rows of one.
    assert second[2] == pytest.approx((9 * 8 + 16) / 17**2)
    assert 6 < first[0] < 8  # half of a square of 17 pixels: a circle of radius sqrt(17^2 / 2 / pi) = 6.8


def test_boxes_follow_an_image_that_the_pipeline_resizes(squares):
    small = [{**instance, 'bbox': [side / 2 for side in instance['bbox']]} for instance in INFO['instances']]
    info = dict(INFO, width=32, height=32, instances=small)
    assert list(measure_receptive_field.fields_of(None, info, -1)) == list(measure_receptive_field.fields_of(None, INFO, -1))


def test_means_leave_out_what_has_no_room_beside(squares):
    wide = dict(bbox=[8, 8, 56, 56], bbox_label=0, ignore_flag=0)
    assert measure_receptive_field.places(wide['bbox'], 64) == ((32, 32), None)
    means = measure_receptive_field.measure(None, [INFO, dict(INFO, instances=[wide])])
    assert means['objects'] == 3
    assert means['inside'] == pytest.approx((16 / 17 + 16 / 17 + 1) / 3)
    assert means['beside'] == pytest.approx((9 * 8 + 16) / 17**2 / 2)
    with pytest.raises(ValueError, match='images must show objects, with room beside them, that the network responds to, but got 1 without'):
        measure_receptive_field.measure(None, [dict(INFO, instances=[CROWD])])


def test_a_detector(tmp_path, monkeypatch):
    make_shapes(tmp_path / 'shapes', num_train=0, num_val=2, size=96)
    config, checkpoint, out = (tmp_path / name for name in ('config.py', 'x.pth', 'out.json'))
    config.write_text(
        f"_base_ = '{CONFIGS / 'faster-rcnn_lip-r14_fpn_1xb8-400i_shapes-160x160.py'}'\n"
        f"test_dataloader = dict(dataset=dict(data_root='{tmp_path / 'shapes'}/'))\n"
    )
    torch.save(dict(state_dict=load_model(config).state_dict()), checkpoint)
    arguments = ['measure_receptive_field.py', str(config), str(checkpoint), '--out', str(out)]
    monkeypatch.setattr('sys.argv', arguments)
    measure_receptive_field.main()
    means = json.loads(out.read_text())
    assert set(means) == {'radius', 'inside', 'beside', 'objects'}
    assert means['objects'] >= 2
    assert 0 < means['inside'] < 1
    assert 0 < means['radius'] < 160
    monkeypatch.setattr('sys.argv', [*arguments, '--num-images', '0'])
    with pytest.raises(SystemExit):
        measure_receptive_field.main()
