"""Write a segmentor or classifier as an ONNX file for images of any size, and check it against PyTorch.

    python tools/export_onnx.py CONFIG CHECKPOINT OUT.onnx --image street.jpg

The file needs neither this package nor PyTorch. Its input `image` (N, C, H, W) holds images as OpenCV reads them: BGR, 0 to 255, float32; colours are
swapped and normalised inside. Its output `logits` has the size of the image (segmentors) or a row for each image (classifiers). It is run at two
sizes; OUT.png shows both predictions. Segmentors predict whole images: a config whose test_cfg.mode is 'slide' leaves the windows to the caller.
"""

import argparse
import os
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from PIL import Image
from torch import nn

from mmpool_ext.files import whole_file
from mmpool_ext.ops._extension import torch_release

# The exporter that traces, which torch before 2.5 has alone: whole networks of mmseg get through it, not through the newer one.
BY_TRACING = {} if torch_release(torch.__version__) < (2, 5) else {'dynamo': False}
TOLERANCE = 1e-4  # of the largest logit


class Deployed(nn.Module):
    """From an image as OpenCV reads it to logits.

    Args:
        model: A segmentor of mmseg, or a classifier of mmpretrain.

    Raises:
        ValueError: If it is neither.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        codebase = 'mmseg' if hasattr(model, 'encode_decode') else 'mmpretrain' if hasattr(model, 'head') else None
        if codebase is None:
            raise ValueError(
                f'export_onnx: the model must be a segmentor or a classifier, but got {type(model).__name__}; mmdeploy exports detectors, and '
                'torch.onnx.export(model.backbone, ...) their backbones'
            )
        self.model, self.segments = model, codebase == 'mmseg'
        preprocessor = model.data_preprocessor
        self.swaps = any(getattr(preprocessor, name, False) for name in ('channel_conversion', '_channel_conversion', 'to_rgb'))
        self.normalises = getattr(preprocessor, '_enable_normalize', False)

    def forward(self, image):
        """Normalise and predict."""
        if self.swaps:
            image = image.flip(1)
        if self.normalises:
            image = (image - self.model.data_preprocessor.mean) / self.model.data_preprocessor.std
        return self.model.encode_decode(image, [dict(img_shape=image.shape[2:])]) if self.segments else self.model(image)


def load_model(config: Path, checkpoint: Path) -> tuple[Deployed, Config]:
    """Build a config's model with its weights, for prediction."""
    os.environ.setdefault('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')  # torch >= 2.6 refuses the checkpoints that mmengine <= 0.10.7 writes
    cfg = Config.fromfile(str(config))
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    if cfg.model.get('data_preprocessor') is None and cfg.get('data_preprocessor') is not None:
        cfg.model.data_preprocessor = cfg.data_preprocessor
    model = MODELS.build(cfg.model)
    load_checkpoint(model, str(checkpoint), map_location='cpu', strict=True)
    deployed = Deployed(model)
    deployed.eval()
    return deployed, cfg


def images(path: Path | None, size: tuple[int, int]) -> list[torch.Tensor]:
    """Make the example and an image of another, odd size: of a file, or of random squares."""
    if path is None:
        source = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    else:
        source = Image.open(path).convert('RGB')
    height, width = size
    sizes = [(height, width), (height + 37 - height % 2, width + 22 - width % 2 + 1)]
    arrays = [
        np.asarray(source.resize((columns, rows), Image.Resampling.NEAREST if path is None else Image.Resampling.BILINEAR)) for rows, columns in sizes
    ]
    return [torch.from_numpy(array[..., ::-1].copy()).permute(2, 0, 1)[None].float() for array in arrays]


@torch.no_grad()
def export(deployed: Deployed, example: torch.Tensor, out: Path, opset: int = 17):
    """Write the ONNX file."""
    axes = {'image': {0: 'batch', 2: 'height', 3: 'width'}, 'logits': {0: 'batch'}}
    if deployed.segments:
        axes['logits'] |= {2: 'height', 3: 'width'}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of the tracer, for checks of sizes in upstream's code
        # The older exporter: the newer one cannot follow the sizes through mmseg's heads with align_corners=True
        names = dict(input_names=['image'], output_names=['logits'])
        torch.onnx.export(deployed, (example,), str(out), **BY_TRACING, dynamic_axes=axes, opset_version=opset, **names)


@torch.no_grad()
def compare(deployed: Deployed, path: Path, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Run both.

    Returns:
        The logits of PyTorch and of onnxruntime.

    Raises:
        ValueError: If their shapes differ, or their values by more than ``TOLERANCE`` of the largest.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    expected, got = deployed(image), torch.from_numpy(session.run(None, {'image': image.numpy()})[0])
    if got.shape != expected.shape:
        raise ValueError(f'export_onnx: the shapes must be those of PyTorch, {tuple(expected.shape)}, but got {tuple(got.shape)}')
    deviation = float((got - expected).abs().max() / expected.abs().max())
    if not deviation <= TOLERANCE:
        raise ValueError(f'export_onnx: the logits must be those of PyTorch to {TOLERANCE} of the largest, but got a deviation of {deviation:.2g}')
    print(f'  {image.shape[2]} x {image.shape[3]}: {tuple(got.shape)}, largest deviation {deviation:.1g} of the largest logit', flush=True)
    return expected, got


def draw(image: torch.Tensor, expected: torch.Tensor, got: torch.Tensor, segments: bool):
    """Draw both predictions of an image; returns a matplotlib figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout='constrained')
    if not segments:
        axes = figure.subplots()
        axes.plot(expected[0], label='PyTorch')
        axes.plot(got[0], '--', label='onnxruntime')
        axes.set(xlabel='class', ylabel='logit')
        axes.legend()
        return figure
    labels = [logits[0].argmax(0) if logits.shape[1] > 1 else (logits[0, 0] > 0).long() for logits in (expected, got)]
    agreement = float((labels[0] == labels[1]).float().mean())
    picture = image[0].flip(0).permute(1, 2, 0).byte()
    titles = 'image', 'PyTorch', f'onnxruntime: {agreement:.2%} of the pixels agree'
    for axes, shown, title in zip(figure.subplots(1, 3), (picture, *labels), titles, strict=True):
        axes.imshow(shown, cmap='tab20', vmin=0, vmax=max(1, int(labels[0].max())), interpolation='nearest')
        axes.set(title=title, xticks=[], yticks=[])
    return figure


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=Path)
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('out', type=Path, help='file to write, e.g. model.onnx; the picture lies beside it as model.png')
    parser.add_argument('--image', type=Path, help='what both are run on; random squares by default')
    parser.add_argument('--size', type=int, nargs=2, default=(256, 256), metavar=('H', 'W'), help='size of the example, default: 256 256')
    parser.add_argument('--opset', type=int, default=17, help='version of ONNX operators, default: %(default)s')
    parser.add_argument('--overwrite', action='store_true', help='replace OUT and its picture if they are there')
    args = parser.parse_args()
    missing = [package for package in ('onnx', 'onnxruntime') if find_spec(package) is None]
    if missing:
        parser.error(f'export_onnx: onnx and onnxruntime must be installed, but there is no {", ".join(missing)}; pip install {" ".join(missing)}')
    picture = args.out.with_suffix('.png')
    if args.out == picture:
        parser.error(f'export_onnx: out must have another suffix than .png, which is the picture, but got {args.out}')
    for path in (args.out, picture):
        if path.exists() and not args.overwrite:
            parser.error(f'export_onnx: out must be a new file, but got {path}; pass --overwrite to write over it')
    try:
        with whole_file(args.out) as unfinished, whole_file(picture) as unfinished_picture:
            print('1/3 build', args.config, flush=True)
            deployed, cfg = load_model(args.config, args.checkpoint)
            example, other = images(args.image, args.size)
            print('2/3 export', flush=True)
            export(deployed, example, unfinished, args.opset)
            print('3/3 compare onnxruntime with PyTorch', flush=True)
            predictions = [compare(deployed, unfinished, image) for image in (example, other)]
            draw(other, *predictions[1], deployed.segments).savefig(unfinished_picture, dpi=110)
    except ValueError as error:
        parser.error(str(error))
    if (cfg.model.get('test_cfg') or {}).get('mode') == 'slide':
        print(f'the config tests in windows ({cfg.model.test_cfg}): cut them before, and average their logits after')
    print(args.out, picture)


if __name__ == '__main__':
    main()
