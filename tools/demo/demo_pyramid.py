"""Train a pyramid head and a plain FCN head on the same small backbone on shapes, by mmseg's own scripts; print a table, draw the pyramid's levels.

Both train at the same time. Everything is written to work_dirs/demo/pyramid. An interrupted run is resumed by the next call.
"""

import argparse
import subprocess
import sys

import demo

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
    percents = demo.train_and_test_together([('mmseg', demo.CONFIGS / f'{config}.py', WORK_DIR / config) for config in ROWS.values()])
    rows = dict(zip(ROWS, percents, strict=True))
    demo.print_table('ResNet-18 on held-out shapes; boundary: within 3 pixels of one', rows, COLUMNS, WORK_DIR / 'table.json')
    demo.print_study('pyramid', 'H: F and coarse-to-fine context')
    work_dir = WORK_DIR / ROWS['pyramid']
    checkpoint = (work_dir / 'last_checkpoint').read_text()
    image, label = (demo.SHAPES / folder / f'{args.image}{suffix}' for folder, suffix in (('JPEGImages', '.jpg'), ('SegmentationClass', '.png')))
    picture = WORK_DIR / 'levels.png'
    command = [sys.executable, demo.ROOT / 'tools' / 'analysis_tools' / 'visualize_pyramid.py', demo.CONFIGS / f'{ROWS["pyramid"]}.py', checkpoint]
    subprocess.run([*command, image, picture, '--label', label, '--overwrite'], check=True, stdout=subprocess.DEVNULL)
    print(f'What each level says, and which level each pixel takes: {picture}')


if __name__ == '__main__':
    main()
