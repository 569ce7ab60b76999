"""Draw what networks with LIP see beside networks without: class activation maps, effective receptive fields, each pixel's importance to each LIP.

    python tools/analysis_tools/visualize_lip.py IMAGE OUT.png --network LIP CONFIG CHECKPOINT --network strided CONFIG CHECKPOINT ...

Above, the LIP paper's Fig. 5: a column a network, class activation maps in the first row, below them the gradients at chosen locations of the maps.
Beneath, for each network with LIP, the logits of all its poolings. Networks are mmpretrain's classifiers or mmdet's detectors; the image goes through
the first config's test pipeline. A network without CHECKPOINT is drawn in its initial state and labelled so.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from rich.progress import track

from mmpool_ext.files import whole_file
from mmpool_ext.layers import LIPPool2d
from mmpool_ext.visualization.importance import draw_importance, watch_importance
from mmpool_ext.visualization.pipeline import image_pipeline
from mmpool_ext.visualization.receptive_field import class_activation, draw_receptive_fields, receptive_field

SCOPES = ('mmdet', 'mmpretrain')


def load_model(config, checkpoint=None):
    """Build a network with its weights and, as ``model.classes``, what the checkpoint says its classes are called.

    Raises:
        ValueError: If the config is of another codebase than mmdet and mmpretrain.
        RuntimeError: If the checkpoint does not fit the network to the last tensor.
    """
    cfg = Config.fromfile(config)
    if cfg.get('default_scope') not in SCOPES:
        raise ValueError(f'visualize_lip: the config must have a default_scope in {SCOPES}, but got {cfg.get("default_scope")!r} in {config}')
    init_default_scope(cfg.default_scope)
    if 'data_preprocessor' in cfg:  # mmpretrain keeps it apart
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(cfg.model).eval()
    meta = {}
    if checkpoint is not None:
        os.environ.setdefault('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')  # torch >= 2.6 refuses the checkpoints that mmengine <= 0.10.7 writes
        meta = load_checkpoint(model, str(checkpoint), map_location='cpu', strict=True).get('meta', {})
    model.cfg, model.classes = cfg, (meta.get('dataset_meta') or {}).get('classes')
    return model


def load_image(model, path):
    """Run a config's test pipeline on an image file.

    Returns:
        The image as the network sees it, RGB ``(H, W, 3)``, and a batch for the model's data preprocessor.
    """
    init_default_scope(model.cfg.get('default_scope', 'mmengine'))
    batch = pseudo_collate([image_pipeline(model.cfg)(dict(img_path=str(path), img_id=0))])
    return np.ascontiguousarray(batch['inputs'][0].permute(1, 2, 0).numpy()[..., ::-1]), batch


def look(model, batch, class_index, stage):
    """Run one network.

    Returns:
        The preprocessed image, its class activation map and class, and the logits of its LIPs by name.
    """
    init_default_scope(model.cfg.get('default_scope', 'mmengine'))
    data = model.data_preprocessor(batch, False)
    inputs = data['inputs'].requires_grad_()
    if not any(isinstance(module, LIPPool2d) for module in model.modules()):
        return inputs, *class_activation(model, inputs, data['data_samples'], class_index, stage), {}
    with watch_importance(model) as maps:
        return inputs, *class_activation(model, inputs, data['data_samples'], class_index, stage), maps


def visualize(models, path, locations=(), class_name=None, stage=-1, num_channels=5):
    """Draw networks beside each other.

    Args:
        models: Networks of :func:`load_model` by the name to show.
        path: Image file.
        locations: ``(x, y)`` in pixels of the image as the network sees it; none: the peak of the first network's class activation map.
        class_name: Class of the maps, by name or index; None: what the first network predicts.
        stage: Index of the features among the backbone's outputs.
        num_channels: Channels that are drawn of each LIP.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: If there is no such class, or a location lies outside the image.
    """
    first = next(iter(models.values()))
    image, batch = load_image(first, path)
    names = first.classes or ()
    if class_name is not None and class_name not in names and not class_name.isdigit():
        raise ValueError(f'visualize_lip: class must be an index or one of the first checkpoint: {tuple(names)}, but got {class_name!r}')
    class_index = names.index(class_name) if class_name in names else None if class_name is None else int(class_name)
    activations, fields, strides, importance = {}, {}, {}, {}
    for name, model in track(models.items(), 'look', transient=True):
        inputs, activation, class_index, maps = look(model, batch, class_index, stage)
        strides[name] = inputs.shape[3] / activation.shape[1]
        if not locations:
            peak = divmod(int(activation.argmax()), activation.shape[1])
            locations = [tuple(int(cell * strides[name]) for cell in peak[::-1])]
        fields[name] = [receptive_field(activation, inputs, location)[: image.shape[0], : image.shape[1]] for location in locations]
        activations[name] = activation.detach()
        if maps:
            importance[name] = {pool.removeprefix('backbone.'): logit[0] for pool, logit in maps.items()}
    heights = [3 * (1 + len(locations)), *(2 * len(maps) for maps in importance.values())]
    width = max(3 * (1 + len(models)), 2.2 * (num_channels + 2) if importance else 0)
    figure = Figure(figsize=(width, sum(heights) + 0.4 * len(heights)), layout='constrained')
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    label = names[class_index] if names else f'class {class_index}'
    draw_receptive_fields(image, locations, activations, fields, label, strides, parts[0])
    for part, (name, maps) in zip(parts[1:], importance.items(), strict=True):
        part.suptitle(
            f'{name}: logit of each pixel at every LIP. Bright pixels weigh more in their window; a flat map is average pooling', fontsize=11
        )
        draw_importance(image, maps, num_channels, part)
    return figure


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('image', type=Path)
    parser.add_argument('out', type=Path, help='PNG to write')
    parser.add_argument(
        '--network', nargs='+', action='append', required=True, metavar='NAME CONFIG CHECKPOINT', help='once a network; CHECKPOINT may be left out'
    )
    parser.add_argument('--location', nargs=2, type=int, action='append', default=[], metavar=('X', 'Y'), help='once a location (default: the peak)')
    parser.add_argument('--class', dest='class_name', help='name or index (default: what the first network predicts)')
    parser.add_argument('--stage', type=int, default=-1, help="which of the backbone's outputs to look at (default: the last)")
    parser.add_argument('--num-channels', type=int, default=5, help='maps a LIP, those that vary most (default: %(default)s)')
    parser.add_argument('--overwrite', action='store_true', help='replace OUT if it is there')
    args = parser.parse_args()
    if args.out.exists() and not args.overwrite:
        parser.error(f'{args.out} must not exist; pass --overwrite to replace')
    models = {}
    try:
        for network in args.network:
            if len(network) not in (2, 3):
                raise ValueError(f'visualize_lip: network must be NAME CONFIG [CHECKPOINT], but got {" ".join(network)}')
            name, *files = network
            models[name if len(files) == 2 else f'{name} (untrained)'] = load_model(*files)
        figure = visualize(models, args.image, [tuple(location) for location in args.location], args.class_name, args.stage, args.num_channels)
    except (ValueError, RuntimeError, OSError) as error:
        parser.error(str(error))
    with whole_file(args.out) as unfinished:
        figure.savefig(unfinished, dpi=110, format='png')
    print(args.out)


if __name__ == '__main__':
    torch.manual_seed(0)
    main()
