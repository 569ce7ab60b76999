import json
import sys

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip('mmseg')
import measure_shift
from demo import CONFIGS
from make_shapes import make_shapes
from mmengine.registry import DefaultScope


class Classifier(nn.Module):
    """Stands in for a segmentor: the class of a pixel is that of a cell of ``stride`` pixels of the crop."""

    def __init__(self, stride):
        super().__init__()
        self.stride = stride

    def test_step(self, data):
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        results = []
        for image in data['inputs']:
            cells = image[:1, :: self.stride, :: self.stride].repeat_interleave(self.stride, 1).repeat_interleave(self.stride, 2)
            results.append(SegDataSample(pred_sem_seg=PixelData(data=cells[:, : image.shape[1], : image.shape[2]])))
        return results


@pytest.fixture
def pictures(tmp_path):
    make_shapes(tmp_path / 'shapes', num_train=0, num_val=2, size=96)
    return sorted((tmp_path / 'shapes' / 'JPEGImages').glob('*.jpg'))


def test_a_network_that_moves_with_the_image_is_consistent_and_a_strided_one_at_its_stride_alone(pictures):
    assert set(measure_shift.measure(Classifier(1), pictures, [1, 3, 8], 64, 8).values()) == {1.0}
    strided = measure_shift.measure(Classifier(4), pictures, [1, 2, 3, 4, 8], 64, 8)
    assert strided[4] == strided[8] == 1
    assert max(strided[shift] for shift in (1, 2, 3)) < 0.9


@pytest.mark.parametrize('axis', [0, 1])
def test_the_same_pixels_are_compared(axis):
    image = np.arange(60 * 70).reshape(60, 70, 1).repeat(3, 2)
    first, second = (crop[..., 0] for crop in measure_shift.crops(image, 5, 32, axis))
    assert measure_shift.agreement(first, second, 5, axis, 3) == 1
    assert measure_shift.agreement(first, second, 4, axis, 3) == 0


def test_writes_json_and_refuses_what_does_not_fit(tmp_path, monkeypatch, capsys):
    make_shapes(tmp_path / 'shapes', num_train=0, num_val=2, size=96)
    config = tmp_path / 'config.py'
    config.write_text(
        f"_base_ = '{CONFIGS / 'bilinear_r18-os16_1xb8-400i_shapes-160x160.py'}'\n"
        f"test_dataloader = dict(dataset=dict(data_root='{tmp_path / 'shapes'}'))\n"
    )
    from mmengine.config import Config
    from mmengine.logging import HistoryBuffer
    from mmengine.registry import MODELS

    monkeypatch.delenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', raising=False)

    with DefaultScope.overwrite_default_scope('mmseg'):
        weights = MODELS.build(Config.fromfile(config).model).state_dict()
        torch.save(dict(state_dict=weights, message_hub=HistoryBuffer()), tmp_path / 'x.pth')  # as mmengine's checkpoints have
        arguments = [str(config), str(tmp_path / 'x.pth'), '--shifts', '1', '16', '--out', str(tmp_path / 'out.json')]
        monkeypatch.setattr(sys, 'argv', ['measure_shift.py', *arguments, '--size', '64'])
        measure_shift.main()
        assert set(json.loads((tmp_path / 'out.json').read_text())) == {'1', '16'}
        assert not list(tmp_path.glob('.*'))
        for wrong, message in (
            ('90', r'size must be at most the image minus the shift, but got 90'),
            ('40', '--shifts must be >= 1 and leave pixels'),
        ):
            monkeypatch.setattr(sys, 'argv', ['measure_shift.py', *arguments, '--size', wrong])
            with pytest.raises(SystemExit):
                measure_shift.main()
            assert message in ' '.join(capsys.readouterr().err.split())
