"""Fit the projection of DUpsampling to the training labels of a config.

    python tools/analysis_tools/fit_dupsampling.py configs/dupsampling/CONFIG.py --ratio 16 --channels 64 --out work_dirs/voc12_r16_c64.pth

Reads the label maps of the config's train_dataloader (labels only: no image is opened, nothing is augmented), splits them into windows of
ratio x ratio pixels and writes W, the mean and the inverse projection for decode_head.upsample.weight. A picture is written beside OUT: the leading
components, one row each, and one column per class, red where the component raises a class's logit. The mIoU that it prints is that of the training
labels after compression and restoration, W applied to its own projection. Features that are optimised under the same W reach more (89.3 where this
printed 75.5), since the projection minimises squared distances, not wrong labels. Use it to compare fits; it is no upper bound for a decoder.

OUT is written when it is complete; an interrupted fit leaves no file and starts again.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.data import DataLoader, Dataset

from mmpool_ext.datasets.dataset_configs import leaves, loads_labels, step_class, type_name
from mmpool_ext.files import whole_file
from mmpool_ext.layers.dupsampling_fit import METHODS, VOID_RULES, fit_dupsampling
from mmpool_ext.visualization.dupsampling_components import draw_components

UPSTREAM = ('mmcv', 'mmengine', 'mmseg', 'mmdet', 'mmpretrain', 'mmpool_ext')


def steps_of_labels(leaf, tool):
    """Choose the steps of a data set's pipeline that read labels.

    Returns:
        Its LoadAnnotations alone. If it has none, a class of the user's own reads the labels: all steps but the loading of images.

    Raises:
        ValueError: If there are several.
    """
    steps = leaf.get('pipeline', [])
    chosen = [step for step in steps if loads_labels(step)]
    if len(chosen) > 1:
        raise ValueError(f'{tool}: the pipeline of {type_name(leaf)} must hold one LoadAnnotations, or a subclass, but got {len(chosen)}')
    others = {type_name(step): step_class(step) for step in steps if chosen and step not in chosen}
    own = [name for name, cls in others.items() if cls is not None and cls.__module__.split('.')[0] not in UPSTREAM]
    if own:
        print(f'warning: {", ".join(own)} of the pipeline is left out; if it changes labels, do so in a subclass of LoadAnnotations')
    return chosen or [step for step in steps if type_name(step) != 'LoadImageFromFile']


def cut_after_labels(dataset, tool):
    """Keep the steps of a pipeline up to the one that makes the label map; what comes before it runs, too."""
    results, steps = dataset.get_data_info(0), dataset.pipeline.transforms
    for index, step in enumerate(steps):
        try:
            results = step(results)
        except KeyError as error:
            raise ValueError(
                f'{tool}: the pipeline must hold LoadAnnotations or another step that makes gt_seg_map, but got {type(step).__name__} before it,'
                f' which wants {error}'
            ) from error
        if 'gt_seg_map' in results:
            dataset.pipeline.transforms = steps[: index + 1]
            return
    names = [type(step).__name__ for step in steps]
    raise ValueError(f'{tool}: the pipeline must hold LoadAnnotations or another step that makes gt_seg_map, but got {names}')


def list_labels_without_images(dataset, tool):
    """Let a data set whose image folder is not there list its label folder instead: no image is opened."""
    images, labels = (dataset.data_prefix.get(key) for key in ('img_path', 'seg_map_path'))
    if not images or Path(images).is_dir() or Path(dataset.ann_file or '').is_file():
        return
    if not labels or not Path(labels).is_dir():
        raise ValueError(f'{tool}: {type(dataset).__name__} must have a folder of images or of labels, but got {images} and {labels}')
    dataset.data_prefix['img_path'], dataset.img_suffix = labels, dataset.seg_map_suffix


def load_labels(cfg, loader='train', tool='fit_dupsampling'):
    """Build the data sets of a loader with nothing but the loading of labels in their pipelines.

    Returns:
        The data sets, those in wrappers too, and their number of classes.

    Raises:
        ValueError: If a data set has no labels, or the data sets differ in their number of classes.
    """
    from mmseg.registry import DATASETS

    init_default_scope('mmseg')
    datasets = []
    for leaf in leaves(cfg[f'{loader}_dataloader'].dataset):
        dataset = DATASETS.build(leaf | dict(pipeline=steps_of_labels(leaf, tool), lazy_init=True))
        list_labels_without_images(dataset, tool)
        dataset.full_init()
        missing = [info for info in (dataset.get_data_info(i) for i in range(len(dataset))) if not Path(info.get('seg_map_path') or '').is_file()]
        if missing or not len(dataset):
            what = f'no label for {missing[0]["img_path"]}' if missing else 'an empty data set'
            raise ValueError(f'{tool}: every image of {type_name(leaf)} in {loader}_dataloader must have a label file, but got {what}')
        cut_after_labels(dataset, tool)
        datasets.append(dataset)
    counts = {len(dataset.metainfo['classes']) for dataset in datasets}
    if len(counts) > 1:
        raise ValueError(f'{tool}: all data sets must have the same number of classes, but got {sorted(counts)}')
    return datasets, counts.pop()


class LabelMaps(Dataset):
    """The label maps of some of mmseg's data sets, one after the other.

    Args:
        datasets: What :func:`load_labels` gives.
        most: Label maps at most; None for all.
    """

    def __init__(self, datasets, most=None):
        self.places = [(dataset, index) for dataset in datasets for index in range(len(dataset))][:most]

    def __len__(self):
        return len(self.places)

    def __getitem__(self, index):
        dataset, index = self.places[index]
        return dataset[index]['gt_seg_map']

    def read(self, num_workers):
        """Yield the label maps in order, read by ``num_workers`` processes or, for 0, by this one."""
        return iter(DataLoader(self, batch_size=None, num_workers=num_workers, collate_fn=_as_it_is))


def _as_it_is(label):
    return label


def add_num_workers(parser):
    """Add the option that the tools which read label maps share."""
    text = 'processes that read label maps, worth it where files come slowly; 0: none beside this one (default: %(default)s)'
    parser.add_argument('--num-workers', type=int, default=0, help=text)


def void_label(cfg, datasets):
    """The label that training leaves out: ``ignore_index`` of the config's decode head, or else that of the data sets."""
    head = (cfg.get('model') or {}).get('decode_head') or {}
    return (head[-1] if isinstance(head, list) else head).get('ignore_index', datasets[0].ignore_index)


def warn_of_absent_classes(pixels, classes, ignore_index):
    """Name the classes that no pixel has: labels of 0 and 255 for two classes are background and void, not background and foreground."""
    absent = [name for name, count in zip(classes, pixels, strict=True) if not count]
    if absent:
        print(f'warning: no pixel has {", ".join(absent)}; {ignore_index} is void, and other labels than 0 to {len(classes) - 1} are none')


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
    parser.add_argument('--ignore-index', type=int, help="label of void pixels (default: the decode head's, or else the data set's)")
    parser.add_argument('--max-windows', type=int, default=1_000_000, help='mixed windows to keep, ratio^2 bytes each (default: %(default)s)')
    parser.add_argument('--steps', type=int, default=2000, help='steps of the gradient methods (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0)
    add_num_workers(parser)
    args = parser.parse_args()
    if args.out.suffix == '.png':
        parser.error(f'OUT must have another suffix than .png, which is its picture, but got {args.out}')
    for path in (args.out, args.out.with_suffix('.png')):
        if path.exists() and not args.overwrite:
            parser.error(f'OUT and its picture must not exist without --overwrite, but got {path}')
    return parser, args


def main():
    """Fit, write and report."""
    parser, args = parse_args()
    cfg = Config.fromfile(args.config)
    try:
        datasets, num_classes = load_labels(cfg)
        ignore_index = void_label(cfg, datasets) if args.ignore_index is None else args.ignore_index
        start = time.perf_counter()
        columns = ('{task.description}', BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        maps = LabelMaps(datasets)
        with Progress(*columns) as bar:
            task = bar.add_task('label maps', total=len(maps))

            pixels = np.zeros(256, int)

            def labels():
                for label in maps.read(args.num_workers):
                    yield label
                    pixels[:] += np.bincount(label[label != ignore_index], minlength=256)
                    bar.advance(task)

            fit = fit_dupsampling(
                labels(),
                num_classes,
                args.ratio,
                args.channels,
                method=args.method,
                void=args.void,
                ignore_index=ignore_index,
                max_windows=args.max_windows,
                steps=args.steps,
                seed=args.seed,
                progress=lambda text: bar.update(task, description=text),
            )
    except ValueError as error:
        parser.error(str(error))
    names = datasets[0].metainfo['classes']
    with whole_file(args.out.with_suffix('.png')) as picture, whole_file(args.out) as unfinished:
        torch.save(fit, unfinished)
        draw_components(fit['weight'], names, args.ratio).save(picture)
    print(f'{fit["windows"]} windows, {fit["mixed_windows"]} of several classes; {fit["method"]} in {time.perf_counter() - start:.0f} s')
    print(f'explained variance: {explained(fit)}\nmIoU of restored training labels: {fit["miou"]:.2f}')
    warn_of_absent_classes(pixels[:num_classes], names, ignore_index)
    print(f'wrote {args.out} and {args.out.with_suffix(".png")}')


def explained(fit):
    """Explained variance as text."""
    ratio = fit.get('explained_variance_ratio')
    return 'not a PCA' if ratio is None else f'{100 * float(ratio.sum()):.2f}% by {len(ratio)} components'


if __name__ == '__main__':
    main()
