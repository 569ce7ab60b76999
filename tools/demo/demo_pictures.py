"""Draw the pictures of README and of the pages from networks that the demos trained, or train them first.

    python tools/demo/demo_pictures.py           # writes docs/images/*.png

A network that is in work_dirs/demo already is not trained again, so after `make demo` this takes a minute.
"""

import argparse
import os
from pathlib import Path

import demo
import demo_lip
import demo_ppool
import demo_pyramid
import matplotlib.pyplot as plt
import numpy as np
import torch
from make_shapes import CLASSES, PALETTE
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from PIL import Image

from mmpool_ext.files import whole_file
from mmpool_ext.layers import fit_dupsampling
from mmpool_ext.visualization.alpha import draw_alpha, watch_alpha
from mmpool_ext.visualization.dupsampling_components import draw_components
from mmpool_ext.visualization.importance import draw_importance, watch_importance
from mmpool_ext.visualization.pipeline import image_pipeline
from mmpool_ext.visualization.pyramid import LEVEL_COLOURS, draw_pyramid

NETWORKS = {
    'lip': ('mmdet', demo_lip.WORK_DIR, demo_lip.ROWS['LIP']),
    'ppool': ('mmseg', demo_ppool.WORK_DIR, next(config for config in demo_ppool.ROWS.values() if 'ppool' in config)),
    'pyramid': ('mmseg', demo_pyramid.WORK_DIR, demo_pyramid.ROWS['pyramid']),
}


def load(method, trained=True):
    """Build a demo's network, trained (it is trained now if it was not yet) or as it starts."""
    codebase, folder, config = NETWORKS[method]
    work_dir = folder / config
    if trained:
        demo.train_and_test(codebase, demo.CONFIGS / f'{config}.py', work_dir)
    cfg = Config.fromfile(demo.CONFIGS / f'{config}.py')
    init_default_scope(codebase)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    if trained:
        os.environ.setdefault('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')  # torch >= 2.6 refuses the checkpoints that mmengine <= 0.10.7 writes
        load_checkpoint(model, (work_dir / 'last_checkpoint').read_text(), map_location='cpu')
    model.cfg = cfg
    return model


@torch.no_grad()
def run(model, path, watch=None):
    """Run a network on an image file; returns what ``watch`` collected, and the features."""
    init_default_scope(model.cfg.default_scope)
    data = image_pipeline(model.cfg)(dict(img_path=str(path), img_id=0))
    data = model.data_preprocessor(dict(inputs=[data['inputs']], data_samples=[data['data_samples']]), False)
    if watch is None:
        return None, model.extract_feat(data['inputs'])
    with watch(model) as maps:
        features = model.extract_feat(data['inputs'])
    return {name.removeprefix('backbone.'): output[0] for name, output in maps.items()}, features


def fit():
    """Fit DUpsampling to the shapes labels: the paper's ratio of 16."""
    paths = sorted((demo.SHAPES / 'SegmentationClass').glob('train_*.png'))
    return fit_dupsampling((np.asarray(Image.open(path)) for path in paths), len(CLASSES) + 1, 16, 64)


def draw_lip(image, before, after):
    """Logits of a few LIPs before and after training."""
    names = [name for name in after if name == 'stem_pool' or name.endswith('0.pool2')][:3]
    figure = plt.figure(figsize=(14, 1.85 * len(names) + 0.4), layout='constrained')
    for part, (title, maps) in zip(figure.subfigures(1, 2), (('before training', before), ('after training', after)), strict=True):
        part.suptitle(title)
        draw_importance(image, {name: maps[name] for name in names}, num_channels=2, figure=part)
    return figure


def draw_overview(image, logit, alpha, components, level, strides):
    """The image and one panel a method."""
    figure, axes = plt.subplots(1, 5, figsize=(15, 3.8), layout='constrained')
    axes[0].imshow(image)
    axes[1].imshow(logit, cmap='gray')
    axes[2].imshow(alpha, cmap='gray')
    axes[3].imshow(components)
    axes[4].imshow(level, cmap=plt.matplotlib.colors.ListedColormap(LEVEL_COLOURS[: len(strides)]), vmin=-0.5, vmax=len(strides) - 0.5)
    titles = (
        'input\n',
        'LIP\nweight of each pixel',
        'P-pooling\naverage (dark) to max',
        'DUpsampling\npatterns of labels',
        'Specialize and Fuse\nscale used',
    )
    for panel, title in zip(axes, titles, strict=True):
        panel.set(xticks=[], yticks=[])
        panel.set_title(title, fontsize=14)
    handles = [plt.matplotlib.patches.Patch(facecolor=colour, label=f'{stride}') for colour, stride in zip(LEVEL_COLOURS, strides, strict=False)]
    axes[4].legend(handles=handles, title='stride', fontsize=9, title_fontsize=9, loc='lower right', framealpha=0.9)
    return figure


def save(figure, path: Path):
    """Write a picture in one step; 256 colours keep it small."""
    with whole_file(path) as unfinished:
        if isinstance(figure, Image.Image):
            picture = figure
        else:
            figure.savefig(unfinished, dpi=75)
            picture = Image.open(unfinished).convert('RGB')
        picture.quantize(256, dither=Image.Dither.NONE).save(unfinished, optimize=True)
    print(f'{path} ({path.stat().st_size // 1024} KB)')


def most_varied(maps):
    """The channel of a map that varies most over the image."""
    return maps[maps.flatten(1).std(1).argmax()].float()


@torch.no_grad()
def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--image', default='val_00000', help='held-out image in the pictures (default: %(default)s)')
    parser.add_argument('--out', type=Path, default=demo.ROOT / 'docs' / 'images', help='folder (default: %(default)s)')
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    demo.make_shapes()
    path = demo.SHAPES / 'JPEGImages' / f'{args.image}.jpg'
    image = np.asarray(Image.open(path))
    label = np.asarray(Image.open(demo.SHAPES / 'SegmentationClass' / f'{args.image}.png'))

    before, _ = run(load('lip', trained=False), path, watch_importance)
    after, _ = run(load('lip'), path, watch_importance)
    save(draw_lip(image, before, after), args.out / 'lip.png')

    alphas, _ = run(load('ppool'), path, watch_alpha)
    save(draw_alpha(image, alphas, num_channels=4), args.out / 'ppool.png')

    fitted = fit()
    names = ['ground', *CLASSES]
    save(draw_components(fitted['weight'], names, 16, num_components=8), args.out / 'dupsampling.png')
    components = draw_components(fitted['weight'][:, 1:6], names, 16, num_components=5, tile=40)

    model = load('pyramid')
    pyramid = model.decode_head.predict_pyramid(run(model, path)[1])
    level = model.decode_head.fuse(pyramid)[1][0].numpy()
    semantic = [logits[0].argmax(0).numpy() for logits in pyramid.semantic]
    unity = [logits[0].sigmoid().numpy() for logits in pyramid.unity]
    save(draw_pyramid(image, semantic, unity, level, model.decode_head.strides, PALETTE, label=label), args.out / 'pyramid.png')

    strides = model.decode_head.strides
    save(
        draw_overview(image, most_varied(after['stem_pool']), most_varied(next(iter(alphas.values()))), components, level, strides),
        args.out / 'overview.png',
    )


if __name__ == '__main__':
    main()
