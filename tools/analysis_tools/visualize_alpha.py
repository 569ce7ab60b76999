"""Draw the orders that a trained P-pooling segmentor predicts for an image: maps per stage and channel, and the mean of every channel (Fig. 6).

python tools/analysis_tools/visualize_alpha.py CONFIG CHECKPOINT IMAGE OUT.png
"""

import argparse
import os
from pathlib import Path

import torch
from PIL import Image

from mmpool_ext.files import whole_file
from mmpool_ext.visualization.alpha import draw_alpha, watch_alpha
from mmpool_ext.visualization.pipeline import image_pipeline


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=Path)
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('image', type=Path)
    parser.add_argument('out', type=Path, help='PNG to write')
    parser.add_argument('--num-channels', type=int, default=5, help='maps a layer, those that vary most (default: %(default)s)')
    parser.add_argument('--device', default='cpu', help='default: %(default)s')
    parser.add_argument('--overwrite', action='store_true', help='replace OUT if it is there')
    args = parser.parse_args()
    if args.out.exists() and not args.overwrite:
        parser.error(f'{args.out} must not exist; pass --overwrite to replace')
    from mmseg.apis import init_model

    os.environ.setdefault('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')  # torch >= 2.6 refuses the checkpoints that mmengine <= 0.10.7 writes
    model = init_model(str(args.config), str(args.checkpoint), device=args.device)
    try:
        data = image_pipeline(model.cfg)(dict(img_path=str(args.image)))
        with watch_alpha(model) as maps, torch.no_grad():
            model.test_step(dict(inputs=[data['inputs']], data_samples=[data['data_samples']]))
    except ValueError as error:
        parser.error(str(error))
    figure = draw_alpha(Image.open(args.image).convert('RGB'), {name: alpha[0] for name, alpha in maps.items()}, args.num_channels)
    with whole_file(args.out) as unfinished:
        figure.savefig(unfinished, dpi=110, format=args.out.suffix[1:] or 'png')
    print(args.out)


if __name__ == '__main__':
    main()
