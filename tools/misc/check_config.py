"""Try everything that a training needs on the first images, before a GPU is booked for days.

    python tools/misc/check_config.py configs/ppool/fcn_ppool-vgg16_4xb5-10k_voc12aug-321x321.py
    python tools/misc/check_config.py CONFIG --images 8 --batch 4 --device cuda --cfg-options train_dataloader.dataset.data_root=data/voc

One line for each finding: are folders, lists and files there; have image and label the same size; do the labels lie in the range of the classes; has
void one label in training, padding and evaluation; do checkpoints fit; do a training step, a validation batch and the evaluator run; what memory
that takes, and how long the schedule will on this device. A step is run on ``--batch`` images by one process, norms not synchronised. The exit code
is 0 if all is well, else 1; what is missing is named with the README that tells how to get it. Data come first: where they have a fault, nothing is
run.
"""

import argparse
import math
import os
import re
import resource
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from mmengine.config import Config, DictAction
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner.checkpoint import _load_checkpoint
from PIL import Image
from rich.progress import track

from mmpool_ext.backbones.checkpoint import is_pretrained
from mmpool_ext.datasets.dataset_configs import leaves

CONFIGS = Path(__file__).parents[2] / 'configs'


class Fault(Exception):
    """Something that would stop or spoil the training; the message is one line."""


def where_to_get(path, config='') -> str:
    """The README and row, of the config's own paper, that tell how to get what should be at ``path``; empty where the package knows nothing of it."""
    rows = yaml.safe_load((CONFIGS / 'data.yml').read_text())
    own = [row for row in rows if Path(config).parent.name in row['needed_by'] and re.search(row['configs'], Path(config).stem)]
    for candidates in (own, rows):
        inside = [(len(folder), index) for index, row in enumerate(candidates) for folder in row['folders'] if Path(path).is_relative_to(folder)]
        above = [(0, -index) for index, row in enumerate(candidates) for folder in row['folders'] if Path(folder).is_relative_to(path)]
        if path and (inside or above):
            row = candidates[abs(max(inside or above)[1])]
            paper = Path(config).parent.name if candidates is own else row['needed_by'][0]
            return f'; see configs/{paper}/README.md, "Data preparation", {row["name"]}'
    return ''


def demand(ok, what, rule, value, hint=''):
    """Raise a :class:`Fault` for what breaks a rule."""
    if not ok:
        raise Fault(f'{what} must {rule}, but got {value}{hint}')


def check_places(name, dataset, config):
    """Folders and lists that a data set's config names."""
    root = dataset.get('data_root') or ''
    demand(not root or os.path.isdir(root), f'{name}: data_root', 'be a folder', repr(root), where_to_get(root, config))
    if dataset.get('ann_file'):
        path = os.path.join(root, dataset.ann_file)
        demand(os.path.isfile(path), f'{name}: ann_file', 'be a file', repr(path), where_to_get(path, config))
    prefix = dataset.get('data_prefix') or {}
    for key, part in prefix.items() if isinstance(prefix, dict) else [('data_prefix', prefix)]:
        path = os.path.join(root, part or '')
        demand(os.path.isdir(path), f'{name}: {key}', 'be a folder', repr(path), where_to_get(path, config))


def check_files(name, dataset, images, config):
    """Every file that a data set lists, and the sizes of the first images and labels."""
    demand(len(dataset) > 0, f'{name}: the data set', 'have images of known classes', 'none')
    for index in track(range(len(dataset)), f'{name}: files', transient=True):
        info = dataset.get_data_info(index)
        for key in ('img_path', 'seg_map_path'):
            path = info.get(key)
            demand(not path or os.path.isfile(path), f'{name}: {key}', 'be a file', repr(path), where_to_get(path or '', config))
        if index < images and info.get('seg_map_path'):
            sizes = [attempt(f'{name}: opening {info[key]}', lambda path=info[key]: Image.open(path).size) for key in ('img_path', 'seg_map_path')]
            demand(sizes[0] == sizes[1], f'{name}: {info["seg_map_path"]}', f'have the size of its image, {sizes[0]}', sizes[1])
    return f'{name}: {len(dataset)} images, all files there'


def loaded(dataset, index):
    """What the pipeline of a data set has of an image as soon as its labels are loaded: nothing is cropped yet."""
    results = dataset.get_data_info(index)
    for transform in dataset.pipeline.transforms:
        results = transform(results)
        if results is None or 'gt_seg_map' in results or 'gt_bboxes_labels' in results:
            break
    return results or {}


def check_labels(name, dataset, images, num_classes, ignore_index):
    """The labels of the first images, of every data set inside of wrappers."""
    inner = getattr(dataset, 'datasets', None) or ([dataset.dataset] if hasattr(dataset, 'dataset') else [])
    for one in inner:
        check_labels(name, one, images, num_classes, ignore_index)
    for index in range(0 if inner else min(images, len(dataset))):
        results = loaded(dataset, index)
        found = next((results[key] for key in ('gt_seg_map', 'gt_bboxes_labels', 'gt_label') if key in results), [])
        void, rule = {ignore_index} if 'gt_seg_map' in results else set(), f'be 0 to {num_classes - 1}'
        wrong = [int(label) for label in np.unique(found) if label not in void and not 0 <= label < num_classes]
        path = results.get('seg_map_path') or results.get('img_path')
        demand(not wrong, f'{name}: labels of {path}', f'{rule} or {ignore_index}' if void else rule, wrong[:5])
    return f'{name}: labels of the first images are in the range of {num_classes} classes'


def void_label(cfg):
    """``ignore_index`` of the decode head."""
    head = cfg.model.get('decode_head') or {}
    return (head[-1] if isinstance(head, list) else head).get('ignore_index', 255)


def check_void(cfg):
    """Whether padding and the metrics have the head's label for void. Otherwise void pixels count as those of a class."""
    if not cfg.model.get('decode_head'):
        return []
    void = void_label(cfg)
    rule = f'be ignore_index of the decode head, {void}'
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    if preprocessor.get('size') or preprocessor.get('size_divisor'):
        value = preprocessor.get('seg_pad_val', 255)
        demand(value == void, 'data_preprocessor.seg_pad_val', rule, value)
    for leaf in leaves(cfg.train_dataloader.dataset):
        for step in leaf.get('pipeline', []):
            value = step.get('seg_pad_val', void)
            demand(value == void, f'seg_pad_val of {step["type"]} in the training pipeline', rule, value)
    for split in ('val', 'test'):
        evaluator = cfg.get(f'{split}_evaluator') or []
        for metric in evaluator if isinstance(evaluator, list) else [evaluator]:
            name = getattr(metric['type'], '__name__', metric['type']).rsplit('.')[-1]
            if name in ('IoUMetric', 'BoundaryIoUMetric', 'PyramidLevelMetric'):
                value = metric.get('ignore_index', 255)
                demand(value == void, f'{split}_evaluator: ignore_index of {name}', rule, value)
    return [f'void is {void} in training, padding and evaluation']


def class_counts(model, path='model'):
    """Every ``num_classes`` in a model's config, by its dotted path."""
    if isinstance(model, (list, tuple)):
        return {key: value for index, one in enumerate(model) for key, value in class_counts(one, f'{path}.{index}').items()}
    if not isinstance(model, dict):
        return {}
    own = {f'{path}.num_classes': model['num_classes']} if isinstance(model.get('num_classes'), int) else {}
    return own | {key: value for name, one in model.items() for key, value in class_counts(one, f'{path}.{name}').items()}


def check_data(cfg, split, images):
    """Build one loader's data set and look at it.

    Returns:
        The data set, its first samples, and lines to print.
    """
    config = cfg[f'{split}_dataloader'].dataset
    for leaf in leaves(config):
        check_places(split, leaf, cfg.filename)
    try:
        dataset = DATASETS.build(config)
    except Exception as error:
        demand(
            'need at least one array' not in str(error), f'{split}: the data set', 'have images of known classes', 'none'
        )  # mmengine's for no image
        raise Fault(f'{split}: the data set must be readable, but got {type(error).__name__}: {str(error).splitlines()[0]}') from error
    lines = [check_files(split, dataset, images, cfg.filename)]
    classes = dataset.metainfo.get('classes')
    counts = class_counts(cfg.model)
    if classes and counts:
        wrong = {name: count for name, count in counts.items() if count != len(classes)}
        demand(not wrong, f'{split}: num_classes', f'be the {len(classes)} classes of the data set everywhere', wrong)
    try:
        samples = [dataset[index] for index in range(min(images, len(dataset)))]
    except Exception as error:
        raise Fault(f'{split}: the pipeline must run on the first images, but got {type(error).__name__}: {error}') from error
    if split == 'train':
        lines.append(check_labels(split, dataset, images, len(classes) if classes else max(counts.values()), void_label(cfg)))
    return dataset, samples, lines


def read_checkpoint(path):
    """The tensors of a checkpoint."""
    demand('://' in path or os.path.isfile(path), 'checkpoint', 'be a file', repr(path), '; the README of the config says where it comes from')
    try:
        found = _load_checkpoint(path, map_location='cpu')
        return found.get('state_dict', found)
    except Exception as error:
        raise Fault(f'checkpoint {path} must be readable, but got {type(error).__name__}: {str(error).splitlines()[0]}') from error


def check_checkpoint(path, module, where):
    """How many tensors of a checkpoint fit, in one line."""
    given = {name.removeprefix('module.'): tensor for name, tensor in read_checkpoint(path).items()}
    prefix = f'{where}.'
    if where != 'model' and any(name.startswith(prefix) for name in given):
        given = {name.removeprefix(prefix): tensor for name, tensor in given.items() if name.startswith(prefix)}
    wanted = {name: tensor for name, tensor in module.state_dict().items() if not name.endswith('num_batches_tracked')}
    shapes = {name: tuple(tensor.shape) for name, tensor in given.items() if hasattr(tensor, 'shape') and not name.endswith('num_batches_tracked')}
    fits = [name for name in wanted if shapes.get(name) == tuple(wanted[name].shape)]
    other = [name for name in wanted if name in shapes and name not in fits]
    missing, unused = len(wanted) - len(fits) - len(other), len(shapes) - len(fits) - len(other)
    line = f'{where}: of {len(wanted)} tensors {len(fits)} are in {path}, {missing} are not, {len(other)} have another shape'
    demand(fits, f'checkpoint {path}', f'fit {where}', f'no tensor of its name and shape among {len(wanted)}')
    return f'{line}; {unused} of the checkpoint are not used'


def check_checkpoints(cfg, model):
    """Every checkpoint that the config starts from."""
    lines = []
    for name, module in model.named_modules():
        init = getattr(module, 'init_cfg', None)
        for one in init if isinstance(init, list) else [init]:
            if one and is_pretrained(one) and one.get('checkpoint'):
                lines.append(check_checkpoint(one['checkpoint'], module, name or 'model'))
    if cfg.get('load_from'):
        lines.append(check_checkpoint(cfg.load_from, model, 'model'))
    return lines


def peak_memory(device):
    """GiB, of the GPU or of this process."""
    if torch.device(device).type == 'cuda':
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def attempt(what, function):
    """Run a step of the training; turn what it raises into one line."""
    try:
        return function()
    except Exception as error:
        raise Fault(f'{what} must run, but got {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ""}') from error


def train_steps(cfg, model, samples, batch, device):
    """Two training steps; the second is timed."""
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    data = pseudo_collate((samples * batch)[:batch])
    for _ in range(2):
        start = time.perf_counter()
        losses = model.train_step(data, wrapper)
        if torch.device(device).type == 'cuda':
            torch.cuda.synchronize()
    return time.perf_counter() - start, float(losses['loss'])


def hours(cfg, num_images, seconds):
    """What the schedule takes at this speed: steps and hours."""
    loop, batch = cfg.train_cfg, cfg.train_dataloader.batch_size
    gpus = max(1, round(cfg.get('auto_scale_lr', {}).get('base_batch_size', batch) / batch)) if 'max_epochs' in loop else 1
    steps = loop.get('max_iters') or loop.max_epochs * math.ceil(num_images / (batch * gpus))
    return steps, steps * seconds / 3600


def check(cfg, images=4, batch=2, device='cpu', weights=True):
    """Yield a line for everything that is well.

    Args:
        cfg: The config.
        images: How many images of each data set are run.
        batch: Images of the training step.
        device: Where the model runs.
        weights: Whether checkpoints are looked at; without them a network that fetches its weights starts at random.

    Raises:
        Fault: At the first finding that is not.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    data = {}
    for split in ('train', 'val', 'test'):
        if cfg.get(f'{split}_dataloader'):
            *data[split], lines = check_data(cfg, split, images)
            yield from lines
    yield from check_void(cfg)
    if not weights:
        cfg.load_from = None
        cfg.model.pop('pretrained', None)
        if 'pretrained' in cfg.model.get('backbone', {}):
            cfg.model.backbone.pop('pretrained')
    model = attempt('building the model', lambda: revert_sync_batchnorm(MODELS.build(cfg.model)))
    if weights:
        yield from check_checkpoints(cfg, model)
        attempt('init_weights', model.init_weights)
    model = model.to(device).train()
    seconds, loss = attempt('a training step', lambda: train_steps(cfg, model, data['train'][1], batch, device))
    demand(math.isfinite(loss), 'the loss of the second step', 'be finite', loss)
    yield f'train: a step on {batch} images takes {seconds:.2f} s and {peak_memory(device):.1f} GiB on {device}, loss {loss:.3g}'
    model.eval()
    for split in ('val', 'test'):
        if split in data and cfg.get(f'{split}_evaluator'):
            dataset, samples = data[split]
            evaluator = attempt(f'building {split}_evaluator', lambda split=split: Evaluator(cfg[f'{split}_evaluator']))
            evaluator.dataset_meta = dataset.metainfo

            def evaluate(samples=samples, evaluator=evaluator):
                for sample in samples:
                    batch = pseudo_collate([sample])
                    with torch.no_grad():
                        evaluator.process(model.val_step(batch), batch)
                return evaluator.evaluate(len(samples))

            metrics = attempt(f'{split}: prediction and evaluation', evaluate)
            yield f'{split}: predicted and evaluated {len(samples)} images: {", ".join(metrics) or "files written"}'
    steps, duration = hours(cfg, len(data['train'][0]), seconds)
    own = cfg.train_dataloader.batch_size
    yield f'schedule: {steps} steps, {duration:.1f} hours at this speed, with {batch} images a step where the config has {own}'


def main(arguments=None) -> int:
    """Parse the command line; 0 if all is well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('--images', type=int, default=4, help='of each data set, run through everything (default: %(default)s)')
    parser.add_argument('--batch', type=int, default=2, help='images of the training step; the memory is of this many (default: %(default)s)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='default: %(default)s')
    parser.add_argument('--no-weights', action='store_true', help='look at no checkpoint and fetch none')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help="key=value over the config, as in OpenMMLab's scripts")
    args = parser.parse_args(arguments)
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    try:
        for line in check(cfg, args.images, args.batch, args.device, not args.no_weights):
            print(f'ok    {line}', flush=True)
    except Fault as fault:
        print(f'FAULT {fault}', flush=True)
        return 1
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
