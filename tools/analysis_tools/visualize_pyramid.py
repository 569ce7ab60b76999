"""Draw what a trained pyramid head predicts for an image: every level's labels and unit-cells, the level of each pixel, the fused map.

    python tools/analysis_tools/visualize_pyramid.py CONFIG CHECKPOINT IMAGE OUT.png

The image goes through the config's test pipeline; maps cover the network's input, so that a cell is drawn where the network saw it.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from mmcv.transforms import LoadAnnotations

from mmpool_ext.datasets.dataset_configs import leaves
from mmpool_ext.files import whole_file
from mmpool_ext.ops.pyramid import RELABEL_MODES
from mmpool_ext.visualization.pipeline import image_pipeline
from mmpool_ext.visualization.pyramid import draw_pyramid


def load_model(config, checkpoint, device):
    """Build a segmentor with its weights.

    Raises:
        ValueError: If its decode head predicts no unity pyramid.
    """
    from mmseg.apis import init_model

    os.environ.setdefault('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')  # torch >= 2.6 refuses the checkpoints that mmengine <= 0.10.7 writes
    model = init_model(str(config), str(checkpoint), device=device)
    if getattr(model.decode_head, 'supervision', None) not in RELABEL_MODES:
        raise ValueError(
            f'visualize_pyramid: the decode head must be a PyramidRepresentationHead with supervision in {RELABEL_MODES}, '
            f'but got {type(model.decode_head).__name__}'
        )
    return model


@torch.no_grad()
def predict(model, path):
    """Run the test pipeline and the head on an image file.

    Returns:
        The image as the network saw it, RGB ``(H, W, 3)``; each level's labels; each level's unity probabilities; the level of each pixel.
    """
    data = image_pipeline(model.cfg)(dict(img_path=str(path)))
    bgr = data['inputs'].permute(1, 2, 0).numpy()
    data = model.data_preprocessor(dict(inputs=[data['inputs']], data_samples=[data['data_samples']]), False)
    pyramid = model.decode_head.predict_pyramid(model.extract_feat(data['inputs']))
    level = model.decode_head.fuse(pyramid)[1][0]
    semantic = [logits[0].argmax(0).cpu().numpy() for logits in pyramid.semantic]
    return np.ascontiguousarray(bgr[..., ::-1]), semantic, [logits[0].sigmoid().cpu().numpy() for logits in pyramid.unity], level.cpu().numpy()


def ground_truth(model, path):
    """Read a label image as the data set does (``reduce_zero_label``, ``label_map``); void pixels are -1."""
    from mmseg.registry import DATASETS

    dataset = DATASETS.build(dict(next(leaves(model.cfg.test_dataloader.dataset)), lazy_init=True))
    step = next(step for step in dataset.pipeline.transforms if isinstance(step, LoadAnnotations))
    found = step(dict(seg_map_path=str(path), reduce_zero_label=dataset.reduce_zero_label, label_map=dataset.label_map, seg_fields=[]))
    label = found['gt_seg_map'].astype(int)
    return np.where(label == model.decode_head.ignore_index, -1, label)


def visualize(model, path, label=None):
    """Draw an image file's pyramid; ``label`` is ground truth of the size that the test pipeline makes, void -1. Returns a matplotlib figure."""
    head = model.decode_head
    image, semantic, unity, level = predict(model, path)
    return draw_pyramid(image, semantic, unity, level, head.strides, model.dataset_meta['palette'], head.unity_threshold, label)


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=Path)
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('image', type=Path)
    parser.add_argument('out', type=Path, help='picture to write, e.g. pyramid.png')
    parser.add_argument('--label', type=Path, help='label image of the size that the test pipeline makes, drawn as ground truth')
    parser.add_argument('--device', default='cpu', help='default: %(default)s')
    parser.add_argument('--overwrite', action='store_true', help='write over OUT')
    args = parser.parse_args()
    if args.out.exists() and not args.overwrite:
        parser.error(f'visualize_pyramid: out must be a new file, but got {args.out}; pass --overwrite to write over it')
    try:
        model = load_model(args.config, args.checkpoint, args.device)
    except ValueError as error:
        parser.error(str(error))
    try:
        label = None if args.label is None else ground_truth(model, args.label)
        figure = visualize(model, args.image, label)
    except ValueError as error:
        parser.error(str(error))
    with whole_file(args.out) as unfinished:
        figure.savefig(unfinished, dpi=110, format=args.out.suffix[1:] or 'png')
    print(args.out)


if __name__ == '__main__':
    main()
