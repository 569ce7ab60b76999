"""Fit the projection of DUpsampling to the training labels of a config.

    python tools/fit_dupsampling.py configs/dupsampling/CONFIG.py --ratio 16 --channels 64 --out work_dirs/dupsampling_voc12_r16_c64.pth

Reads the label maps of the config's train_dataloader (labels only: no image is opened, nothing is augmented), splits them into windows of
ratio x ratio pixels and writes W, the mean and the inverse projection for decode_head.upsample.weight. Beside it lands OUT's picture: the leading
components, a row each, a column per class, red where the component adds to a class's logit. The mIoU that it prints is that of the training
labels after compression and restoration: what no decoder with this W can exceed on them.

OUT appears only when it is complete; an interrupted fit leaves nothing and starts again.
"""

import argparse
import time
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from mmpool_ext.layers.dupsampling_fit import METHODS, VOID_RULES, fit_dupsampling
from mmpool_ext.visualization.dupsampling_components import draw_components


def leaves(dataset):
    """Yield the configs of the data sets inside wrappers such as ConcatDataset and RepeatDataset."""
    inner = dataset.get('datasets') or ([dataset['dataset']] if 'dataset' in dataset else [])
    if not inner:
        yield dataset
    for one in inner:
        yield from leaves(one)


def load_labels(cfg):
    """Build the training data sets with nothing but LoadAnnotations in their pipelines.

    Returns:
        The data sets and their number of classes.

    Raises:
        ValueError: If a data set has no labels, or the data sets differ in their number of classes.
    """
    from mmseg.registry import DATASETS

    init_default_scope('mmseg')
    datasets = []
    for leaf in leaves(cfg.train_dataloader.dataset):
        pipeline = [step for step in leaf.get('pipeline', []) if step['type'] in ('LoadAnnotations', 'mmseg.LoadAnnotations')]
        if not pipeline:
            raise ValueError(f'fit_dupsampling: the training pipeline of {leaf["type"]} must hold LoadAnnotations, but got none')
        dataset = DATASETS.build(leaf | dict(pipeline=pipeline))
        missing = [info for info in (dataset.get_data_info(i) for i in range(len(dataset))) if not Path(info.get('seg_map_path') or '').is_file()]
        if missing or not len(dataset):
            what = f'no label for {missing[0]["img_path"]}' if missing else 'an empty data set'
            raise ValueError(f'fit_dupsampling: every training image of {leaf["type"]} must have a label file, but got {what}')
        datasets.append(dataset)
    counts = {len(dataset.metainfo['classes']) for dataset in datasets}
    if len(counts) > 1:
        raise ValueError(f'fit_dupsampling: all training data sets must have the same number of classes, but got {sorted(counts)}')
    return datasets, counts.pop()


def parse_args():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of mmseg with a train_dataloader')
    parser.add_argument('--ratio', type=int, default=16, help='window edge: the stride of the features (default: %(default)s)')
    parser.add_argument('--channels', type=int, default=64, help='channels of the features, columns of W (default: %(default)s)')
    parser.add_argument('--out', type=Path, required=True, help='file to write')
    parser.add_argument('--overwrite', action='store_true', help='replace OUT if it is there')
    parser.add_argument('--method', choices=METHODS, default='auto', help='see fit_dupsampling (default: exact PCA up to 8192 dimensions)')
    parser.add_argument('--void', choices=VOID_RULES, default='zero', help='meaning of void and padded pixels (default: no class at all)')
    parser.add_argument('--ignore-index', type=int, default=255, help='label of void pixels (default: %(default)s)')
    parser.add_argument('--max-windows', type=int, default=1_000_000, help='mixed windows to keep, ratio^2 bytes each (default: %(default)s)')
    parser.add_argument('--steps', type=int, default=2000, help='steps of the gradient methods (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    if args.out.exists() and not args.overwrite:
        parser.error(f'OUT must not exist without --overwrite, but got {args.out}')
    return parser, args


def main():
    """Fit, write and report."""
    parser, args = parse_args()
    cfg = Config.fromfile(args.config)
    try:
        datasets, num_classes = load_labels(cfg)
        start = time.perf_counter()
        columns = ('{task.description}', BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns) as bar:
            task = bar.add_task('label maps', total=sum(len(dataset) for dataset in datasets))

            def labels():
                for dataset in datasets:
                    for index in range(len(dataset)):
                        yield dataset[index]['gt_seg_map']
                        bar.advance(task)

            fit = fit_dupsampling(
                labels(),
                num_classes,
                args.ratio,
                args.channels,
                method=args.method,
                void=args.void,
                ignore_index=args.ignore_index,
                max_windows=args.max_windows,
                steps=args.steps,
                seed=args.seed,
                progress=lambda text: bar.update(task, description=text),
            )
    except ValueError as error:
        parser.error(str(error))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    partial = args.out.with_suffix(args.out.suffix + '.partial')
    torch.save(fit, partial)
    partial.replace(args.out)
    names = datasets[0].metainfo['classes']
    draw_components(fit['weight'], names, args.ratio).save(args.out.with_suffix('.png'))
    print(f'{fit["windows"]} windows, {fit["mixed_windows"]} of several classes; {fit["method"]} in {time.perf_counter() - start:.0f} s')
    print(f'explained variance: {explained(fit)}\nmIoU of restored training labels: {fit["miou"]:.2f}')
    print(f'wrote {args.out} and {args.out.with_suffix(".png")}')


def explained(fit):
    """Explained variance as text."""
    ratio = fit.get('explained_variance_ratio')
    return 'not a PCA' if ratio is None else f'{100 * float(ratio.sum()):.2f}% by {len(ratio)} components'


if __name__ == '__main__':
    main()
