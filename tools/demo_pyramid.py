"""Train a pyramid head and a plain FCN head on the same small backbone on shapes, by mmseg's own scripts; print a table, draw the pyramid's levels.

Everything lands in work_dirs/demo/pyramid. Interrupt it as you like: the next call goes on from there.
"""

import argparse

import demo
import numpy as np
from PIL import Image
from visualize_pyramid import load_model, visualize

WORK_DIR = demo.WORK_DIRS / 'pyramid'
ROWS = {
    'pyramid': 'pyramid_r18_1xb8-400i_shapes-160x160',
    'FCN': 'fcn_r18_1xb8-400i_shapes-160x160',
}
COLUMNS = {'mIoU': 'mIoU', 'boundary mIoU': 'boundary_mIoU'}


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--image', default='val_00000', help='held-out image in the picture (default: %(default)s)')
    args = parser.parse_args()
    demo.make_shapes()
    rows = {name: demo.train_and_test('mmseg', demo.CONFIGS / f'{config}.py', WORK_DIR / config) for name, config in ROWS.items()}
    demo.print_table('ResNet-18 on held-out shapes; boundary: within 3 pixels of one', rows, COLUMNS, WORK_DIR / 'table.json')
    work_dir = WORK_DIR / ROWS['pyramid']
    model = load_model(demo.CONFIGS / f'{ROWS["pyramid"]}.py', (work_dir / 'last_checkpoint').read_text(), 'cpu')
    label = np.asarray(Image.open(demo.SHAPES / 'SegmentationClass' / f'{args.image}.png'))
    picture = WORK_DIR / 'levels.png'
    visualize(model, demo.SHAPES / 'JPEGImages' / f'{args.image}.jpg', label).savefig(picture, dpi=110)
    print(f'What each level says, and which level each pixel takes: {picture}')


if __name__ == '__main__':
    main()
