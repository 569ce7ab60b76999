"""An ONNX file from a config and a checkpoint."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip('mmseg')
pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
import export_onnx
from mmengine.registry import DefaultScope

MODELS = {
    'pyramid': """
_base_ = 'mmseg::_base_/default_runtime.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
pre = dict(type='SegDataPreProcessor', mean=[100.0, 110.0, 120.0], std=[50.0, 60.0, 70.0], bgr_to_rgb=True, size=(64, 64))
head = dict(type='PyramidRepresentationHead', in_channels=12, in_index=0, channels=8, num_classes=5, strides=(16, 8, 4), norm_cfg=dict(type='BN'))
backbone = dict(type='LabelEncoder', in_channels=3, channels=(4, 6, 8, 10, 12), strides=(2, 2, 1, 1, 1))
model = dict(type='EncoderDecoder', data_preprocessor=pre, backbone=backbone, decode_head=head, train_cfg=dict(), test_cfg=dict(mode='whole'))
""",
    'classifier': """
_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)
model = dict(backbone=dict(type='LIPResNet', depth=14, base_channels=4, init_cfg=None), head=dict(in_channels=128, num_classes=5))
""",
}


def main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['export_onnx.py', *map(str, arguments)])
    with DefaultScope.overwrite_default_scope('mmengine'):  # the tool sets one
        export_onnx.main()


@pytest.fixture(params=MODELS)
def files(request, tmp_path):
    if request.param == 'classifier':
        pytest.importorskip('mmpretrain')
    config, checkpoint = tmp_path / 'config.py', tmp_path / 'weights.pth'
    config.write_text(MODELS[request.param])
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmengine'):
        cfg = export_onnx.Config.fromfile(str(config))
        export_onnx.init_default_scope(cfg.default_scope)
        if 'data_preprocessor' in cfg:
            cfg.model.data_preprocessor = cfg.data_preprocessor
        model = export_onnx.MODELS.build(cfg.model)
    for parameter in model.parameters():  # zero-initialised logits would hide what the poolings do
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    return config, checkpoint, model.eval()


@pytest.mark.filterwarnings('ignore')
def test_file_predicts_what_the_model_predicts(monkeypatch, capsys, tmp_path, files):
    config, checkpoint, model = files
    photo, out = tmp_path / 'photo.png', tmp_path / 'model.onnx'
    bgr = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    Image.fromarray(bgr[..., ::-1]).save(photo)
    main(monkeypatch, config, checkpoint, out, '--image', photo, '--size', '64', '80')
    said = capsys.readouterr().out
    assert '64 x 80' in said
    assert '101 x 103' in said
    assert min(Image.open(out.with_suffix('.png')).size) > 300
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ['.onnx', '.png', '.png', '.pth', '.py']

    # in a process that has neither this package nor torch, beside the model with its own preprocessing
    np.save(tmp_path / 'image.npy', bgr.transpose(2, 0, 1)[None].astype(np.float32))
    code = (
        'import sys; sys.modules.update(dict.fromkeys(["torch", "mmpool_ext"]))\n'
        'import numpy, onnxruntime\n'
        'session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])\n'
        'numpy.save("logits.npy", session.run(None, {"image": numpy.load("image.npy")})[0])\n'
    )
    subprocess.run([sys.executable, '-c', code], cwd=tmp_path, check=True)
    got = torch.from_numpy(np.load(tmp_path / 'logits.npy'))
    with torch.no_grad():
        data = model.data_preprocessor(dict(inputs=[torch.from_numpy(bgr).permute(2, 0, 1)]), False)['inputs']
        if not isinstance(data, torch.Tensor):
            data = torch.stack(list(data))
        expected = model.encode_decode(data, [dict(img_shape=(96, 128))]) if hasattr(model, 'encode_decode') else model(data)
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()

    with pytest.raises(SystemExit):  # OUT is there
        main(monkeypatch, config, checkpoint, out)


def test_detectors_are_refused():
    with pytest.raises(ValueError, match='the model must be a segmentor or a classifier, but got Identity; mmdeploy exports detectors'):
        export_onnx.Deployed(torch.nn.Identity())


def test_another_prediction_is_an_error(monkeypatch, tmp_path):
    class Half(torch.nn.Module):
        def forward(self, image):
            return image / 2

    path = tmp_path / 'half.onnx'
    torch.onnx.export(Half(), (torch.ones(1, 3, 4, 4),), str(path), **export_onnx.BY_TRACING, input_names=['image'], opset_version=17)
    with pytest.raises(ValueError, match=r'to 0\.0001 of the largest, but got a deviation of 0\.5'):
        export_onnx.compare(torch.nn.Identity(), path, torch.ones(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r'those of PyTorch, \(1, 48\), but got \(1, 3, 4, 4\)'):
        export_onnx.compare(torch.nn.Flatten(), path, torch.ones(1, 3, 4, 4))
