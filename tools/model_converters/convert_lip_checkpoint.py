"""Convert the LIP authors' ImageNet weights to the names of this package, or back.

    python tools/model_converters/convert_lip_checkpoint.py lip_resnet-50.pth checkpoints/lip-resnet50_in1k.pth
    python tools/model_converters/convert_lip_checkpoint.py lip_resnet-50.pth checkpoints/lip-resnet50-cls_in1k.pth --classifier
    python tools/model_converters/convert_lip_checkpoint.py --to-authors checkpoints/lip-resnet50-cls_in1k.pth lip_resnet-50.pth

The first is for ``init_cfg`` of ``LIPResNet`` or ``LIPDenseNet`` in any codebase, the second for mmpretrain's ``test.py``. The authors' files are
lip_resnet-50.pth, lip_resnet-101.pth and lip_densenet_121.pth; configs/lip/README.md says where they are. Which one is read off its keys. Tensors
pass through untouched. A file with a key too few or too many, or a tensor of another shape, is refused.
"""

import argparse
import pickle
import re
from pathlib import Path

import torch

from mmpool_ext import LIPDenseNet, LIPResNet
from mmpool_ext.files import whole_file

# Our names as regular expressions, and the authors' for them; the first that matches counts, and all else is alike
NAMES = (
    (r'stem_pool\.logit\.norm\.', 'maxpool.logit.bn.'),
    (r'stem_pool\.', 'maxpool.'),
    (r'logit_trunk\.conv(\d)\.', r'bottleneck_shared.logit.conv\1.'),
    (r'logit_trunk\.norm(\d)\.', r'bottleneck_shared.logit.bn\1.'),
    (r'downsample_pool\.logit\.conv\.', 'downsample.lip.postprocessing.conv.'),
    (r'downsample_pool\.logit\.norm\.', 'downsample.lip.postprocessing.bn.'),
    (r'pool2\.logit\.conv\.', 'conv2.0.postprocessing.conv.'),
    (r'pool2\.logit\.norm\.', 'conv2.0.postprocessing.bn.'),
    (r'(layer[234]\.0\.conv2)\.', r'\1.1.'),
    (r'downsample\.0\.', 'downsample.conv.'),
    (r'downsample\.1\.', 'downsample.bn.'),
    (r'pool0\.logit\.conv\.', 'pool0.logit.conv1.'),
    (r'pool0\.logit\.norm\.', 'pool0.logit.bn1.'),
    (r'pool\.logit\.trunk\.conv(\d)\.', r'pool.logit.conv\1.'),
    (r'pool\.logit\.trunk\.norm(\d)\.', r'pool.logit.bn\1.'),
    (r'pool\.logit\.top\.conv\.', 'pool.logit.conv3.'),
    (r'pool\.logit\.top\.norm\.', 'pool.logit.bn3.'),
)


def authors_name(name):
    """Return the authors' name of a tensor of our backbones."""
    for pattern, replacement in NAMES:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name


def layout_of(state):
    """Find the network whose weights ``state`` looks like.

    Returns:
        Its name, the name of its classifier in the authors' files, and ``[(our name, the authors' name, shape)]`` of its tensors.
    """
    with torch.device('meta'):
        if any('denseblock' in key for key in state):
            title, classifier, network = 'LIP-DenseNet-121', 'classifier', LIPDenseNet(121)
        else:
            depth = 101 if any('layer3.22.' in key for key in state) else 50
            title, classifier, network = f'LIP-ResNet-{depth}', 'fc', LIPResNet(depth)
    tensors = [(name, authors_name(name), tensor.shape) for name, tensor in network.state_dict().items()]
    return title, classifier, tensors


def convert(state, to_authors=False, classifier=False):
    """Rename the tensors of a state dict; their order stays.

    Args:
        state: In the authors' names, with or without ``module.`` in front; with ``to_authors`` in ours, of a backbone or of an mmpretrain
            classifier. All ``num_batches_tracked`` may be absent, as PyTorch 0.4.0 left them away.
        to_authors: Which way to go.
        classifier: Whether to return a classifier of mmpretrain; otherwise the fully connected layer is dropped. With ``to_authors`` the
            keys tell.

    Returns:
        The renamed state dict.

    Raises:
        ValueError: If a key is missing or surplus or a shape differs.
    """
    title, head, tensors = layout_of(state)
    if to_authors:
        classifier = any(key.startswith('backbone.') for key in state)
    elif all(key.startswith('module.') for key in state):
        state = {key.removeprefix('module.'): tensor for key, tensor in state.items()}
    prefix = 'backbone.' if classifier else ''
    rows = [(prefix + ours, authors, shape) for ours, authors, shape in tensors]
    if classifier or (not to_authors and any(key.startswith(f'{head}.') for key in state)):
        channels = 1024 if head == 'classifier' else 2048
        ours = ('head.fc.weight', 'head.fc.bias') if classifier else (None, None)
        rows += [(ours[0], f'{head}.weight', (1000, channels)), (ours[1], f'{head}.bias', (1000,))]
    if not any(key.endswith('num_batches_tracked') for key in state):
        rows = [row for row in rows if not row[1].endswith('num_batches_tracked')]
    targets = {authors if not to_authors else ours: ours if not to_authors else authors for ours, authors, _ in rows}
    shapes = {ours if to_authors else authors: tuple(shape) for ours, authors, shape in rows}
    wrong = {
        'missing': [key for key in shapes if key not in state],
        'surplus': [key for key in state if key not in shapes],
        'of another shape': [f'{key} {tuple(state[key].shape)}' for key in shapes if key in state and tuple(state[key].shape) != shapes[key]],
    }
    if any(wrong.values()):
        layout = 'our' if to_authors else "the authors'"
        found = '; '.join(f'{len(keys)} {kind}: {", ".join(keys[:8])}{", ..." if len(keys) > 8 else ""}' for kind, keys in wrong.items() if keys)
        raise ValueError(f'convert_lip_checkpoint: the file must hold the tensors of {title} under {layout} names, but got {found}')
    return {targets[key]: tensor for key, tensor in state.items() if targets[key]}


def load(path, trusted):
    """Read a state dict, alone or in a checkpoint.

    Raises:
        ValueError: If the file holds more than tensors and is not trusted, or no state dict.
    """
    try:
        state = torch.load(path, map_location='cpu', weights_only=not trusted)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f'convert_lip_checkpoint: the file must load under weights_only=True, but got {path} with other objects in it, as a training run '
            f'leaves them; pass --trusted to run what it holds'
        ) from error
    state = state.get('state_dict', state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not state or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise ValueError(f'convert_lip_checkpoint: the file must hold a state dict, but got {path} without one')
    return state


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, metavar='IN')
    parser.add_argument('out', type=Path, metavar='OUT', help='file to write: a state dict of tensors, for torch.load(weights_only=True)')
    parser.add_argument('--classifier', action='store_true', help='write a classifier for mmpretrain, not a backbone')
    parser.add_argument('--to-authors', action='store_true', help='from our names, of a backbone or of an mmpretrain classifier, to the authors')
    parser.add_argument('--trusted', action='store_true', help='read IN even if it holds more than tensors: that can run code')
    parser.add_argument('--overwrite', action='store_true', help='replace OUT if it is there')
    args = parser.parse_args()
    if args.out.exists() and not args.overwrite:
        parser.error(f'OUT must not exist without --overwrite, but got {args.out}')
    if args.classifier and args.to_authors:
        parser.error('--classifier must not be given with --to-authors, for IN tells')
    try:
        state = convert(load(args.source, args.trusted), args.to_authors, args.classifier)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    with whole_file(args.out) as unfinished:
        torch.save(state, unfinished)
    print(f'{args.out}: {len(state)} tensors')


if __name__ == '__main__':
    main()
