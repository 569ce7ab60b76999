#!/usr/bin/env python
"""Time training steps and inference of networks with LIP beside their plain twins: what a user feels, and where it comes from.

The contestants take turns, as in `benchmark_ops.py`, so that a slow moment of the machine hits all of them:

  ResNet-50                  torchvision's for classification, mmdet's in a detector
  average pooling            average pooling in LIP's places
  LIP                        as it ships: normalization and gate computed inside the pooling
  LIP in parts               normalization, gate and pooling one after the other, as where a hook watches the logit
  LIP in plain PyTorch       without any compiled op
  LIP without norm and gate  what is left if the logits were free of both (not a network of the paper's)

Reported are median and quartiles in milliseconds, the ratio to ResNet-50, and the peak memory of a call on top of the weights.

    python tools/analysis_tools/benchmark_networks.py docs/benchmarks/OUTPUT                  # classification, 224 x 224
    python tools/analysis_tools/benchmark_networks.py OUTPUT --task faster-rcnn --autocast float16 --channels-last
    python tools/analysis_tools/benchmark_networks.py OUTPUT --compile --contestants ResNet-50 LIP
"""

import argparse
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from benchmark_ops import hardware, peak_memory, time_all, write
from rich.console import Console
from rich.progress import Progress
from torch import nn

from mmpool_ext.backbones import LIPResNet
from mmpool_ext.layers import BottleneckTrunk, ProjectionLogit

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'lip'
DETECTORS = {
    'faster-rcnn': 'faster-rcnn_lip-r50_fpn_2x_coco.py',
    'retinanet': 'retinanet_lip-r50_fpn_2x_coco.py',
}
WITHOUT = dict(logit=dict(type='BottleneckLogit', norm_cfg=None, gate_scale=None))
BACKBONES = {
    'ResNet-50': None,
    'average pooling': dict(pool=dict(type='AveragePool2d')),
    'LIP': {},
    'LIP in parts': {},
    'LIP in plain PyTorch': {},
    'LIP without norm and gate': WITHOUT,
}


class Classifier(nn.Module):
    """LIP-ResNet-50 with torchvision's head."""

    def __init__(self, **kwargs):
        super().__init__()
        self.backbone, self.fc = LIPResNet(depth=50, out_indices=(3,), **kwargs), nn.Linear(2048, 1000)

    def forward(self, images):
        """Class scores ``(N, 1000)``."""
        return self.fc(self.backbone(images)[-1].mean((2, 3)))


def as_named(model, contestant):
    """Change a built network into the contestant of that name."""
    for module in model.modules():
        if contestant == 'LIP in plain PyTorch' and hasattr(module, 'backend'):
            module.backend = 'torch'
        if contestant == 'LIP in parts' and isinstance(module, (ProjectionLogit, nn.InstanceNorm2d)):
            module.register_forward_hook(lambda *_: None)
        if contestant == 'LIP without norm and gate' and isinstance(module, BottleneckTrunk):
            module.norm1 = module.norm2 = nn.Identity()
    return model


def classification(contestant, args):
    """Return a network and its loss of one batch, and what it does at inference."""
    cfg = BACKBONES[contestant]
    model = torchvision.models.resnet50() if cfg is None else Classifier(**cfg)
    height, width = args.size
    images = torch.randn(args.batch, 3, height, width).to(args.device, memory_format=args.layout)
    labels = torch.randint(1000, (args.batch,), device=args.device)
    return model, lambda model: F.cross_entropy(model(images), labels), lambda model: model(images)


def detection(contestant, args):
    """The same of a detector of mmdet's; inference is the backbone's alone, on one image."""
    import mmdet  # noqa: F401
    from mmdet.registry import MODELS
    from mmdet.testing import demo_mm_inputs
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    cfg = Config.fromfile(CONFIGS / DETECTORS[args.task]).model
    backbone = BACKBONES[contestant]
    cfg.backbone.init_cfg = None
    cfg.backbone.update(dict(type='mmdet.ResNet') if backbone is None else backbone)
    model = MODELS.build(cfg)
    model.init_weights()
    height, width = args.size
    data = demo_mm_inputs(args.batch, [[3, height, width]] * args.batch, num_classes=80, use_box_type=False)
    data = model.to(args.device).data_preprocessor(data, True)
    images = data['inputs'].to(memory_format=args.layout)
    loss = lambda model: model.parse_losses(model(images, data['data_samples'], mode='loss'))[0]  # noqa: E731
    return model, loss, lambda model: model.backbone(images[:1])


def calls(contestant, args):
    """A contestant's training step and inference as callables without arguments."""
    torch.manual_seed(0)
    model, loss, infer = (classification if args.task == 'classification' else detection)(contestant, args)
    model = as_named(model, contestant).to(args.device, memory_format=args.layout)
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], 1e-4)
    dtype = getattr(torch, args.autocast) if args.autocast else None
    run = torch.compile(model) if args.compile else model

    def autocast():
        return torch.autocast(args.device, dtype) if dtype else nullcontext()

    def step():
        model.train()
        optimizer.zero_grad()
        with autocast():
            value = loss(run)
        value.backward()
        optimizer.step()

    def inference():
        model.eval()
        with torch.no_grad(), autocast():
            infer(run)

    return {'step': step, 'inference': inference}


def main():
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('output', type=Path, help='OUTPUT.json and OUTPUT.png are written')
    parser.add_argument('--task', choices=('classification', *DETECTORS), default='classification', help='(default: %(default)s)')
    parser.add_argument('--contestants', nargs='+', choices=BACKBONES, default=list(BACKBONES), metavar='NAME', help='some of those above')
    parser.add_argument('--batch', type=int, help='images (default: 64 on a GPU, 8 on a CPU; detectors 2)')
    parser.add_argument('--size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), help='(default: 224 224; detectors 800 1333)')
    parser.add_argument('--autocast', choices=('float16', 'bfloat16'), help='(default: none, float32)')
    parser.add_argument('--channels-last', action='store_true', help='lay images and weights out in channels_last')
    parser.add_argument('--compile', action='store_true', help='through torch.compile')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='(default: %(default)s)')
    parser.add_argument('--threads', type=int, help='CPU threads (default: what torch takes)')
    parser.add_argument('--rounds', type=int, default=5, help='rounds of three timed runs of each contestant (default: %(default)s)')
    parser.add_argument('--overwrite', action='store_true', help='replace OUTPUT.json and OUTPUT.png')
    args = parser.parse_args()
    taken = [str(args.output) + suffix for suffix in ('.json', '.png') if Path(str(args.output) + suffix).exists()]
    if taken and not args.overwrite:
        parser.error(f'{taken[0]} exists: choose another name or pass --overwrite')
    if args.threads:
        torch.set_num_threads(args.threads)
    detector = args.task != 'classification'
    args.size = args.size or ((800, 1333) if detector else (224, 224))
    args.batch = args.batch or (2 if detector else 64 if args.device == 'cuda' else 8)
    args.layout = torch.channels_last if args.channels_last else torch.contiguous_format
    device = torch.device(args.device)

    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task('networks', total=len(args.contestants) + 2 * (args.rounds + 1) * len(args.contestants))
        runs = {}
        for contestant in args.contestants:
            runs[contestant] = calls(contestant, args)
            progress.advance(bar)
        rows = []
        for phase in ('step', 'inference'):
            functions = {name: phases[phase] for name, phases in runs.items()}
            times = time_all(functions, args.rounds, device, lambda: progress.advance(bar))
            base = times.get('ResNet-50', next(iter(times.values())))[1]
            for contestant, (low, median, high) in times.items():
                row = {'op': args.task, 'shape': [args.batch, 3, *args.size], 'phase': phase, 'contestant': contestant}
                row |= {'ms': median, 'ms_quartiles': [low, high], 'times_slower': median / base}
                rows.append(row | {'peak_mib': peak_memory(functions[contestant], device) / 2**20})
    layout = 'channels_last' if args.channels_last else 'contiguous'
    facts = {'dtype': f'{args.autocast} autocast' if args.autocast else 'float32', 'layout': layout, 'torch.compile': args.compile}
    write(rows, hardware(device) | facts, args.output)


if __name__ == '__main__':
    main()
