"""Split ADE20K's 20,210 training images at random into 16,168 to train on and 4,042 to evaluate on, as lists for mmseg's ``ann_file``.

    python tools/dataset_converters/split_ade20k.py data/ade/ADEChallengeData2016

writes ``train_16k.txt`` and ``train_4k.txt`` into that folder: the split of the ablations in "Specialize and Fuse", which gives its sizes as
16K and 4K; four fifths are meant to be that. The official validation images are not touched. The same seed gives the same lists, whatever the
order of the files on disk.
"""

import argparse
from pathlib import Path

import numpy as np

from mmpool_ext.files import whole_file

NUM_TRAINING = 20210
LISTS = ('train_16k.txt', 'train_4k.txt')


def split(names, seed):
    """Shuffle names with a seed and return four fifths and the rest, each sorted."""
    names = sorted(names)
    order = np.random.default_rng(seed).permutation(len(names))
    first = round(len(names) * 0.8)
    return [[names[index] for index in sorted(part)] for part in (order[:first], order[first:])]


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('root', type=Path, help='folder with images/training')
    parser.add_argument('--seed', type=int, default=0, help='same seed, same lists (default: %(default)s)')
    parser.add_argument('--any-number', action='store_true', help=f'do not insist on {NUM_TRAINING} images')
    parser.add_argument('--overwrite', action='store_true', help='write over lists that are there')
    args = parser.parse_args()
    names = [path.stem for path in (args.root / 'images' / 'training').glob('*.jpg')]
    if len(names) != NUM_TRAINING and not (args.any_number and names):
        parser.error(f'split_ade20k: images/training must hold {NUM_TRAINING} .jpg files, but got {len(names)} in {args.root}')
    outputs = [args.root / name for name in LISTS]
    if not args.overwrite and (existing := [str(path) for path in outputs if path.exists()]):
        parser.error(f'split_ade20k: the lists must be new, but got {", ".join(existing)}; pass --overwrite to write over them')
    for path, part in zip(outputs, split(names, args.seed), strict=True):
        with whole_file(path) as unfinished:
            unfinished.write_text('\n'.join(part) + '\n')
        print(f'{path}: {len(part)} images')


if __name__ == '__main__':
    main()
