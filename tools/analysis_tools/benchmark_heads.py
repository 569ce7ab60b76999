"""Compare time, memory and multiply-adds of the pyramid head with mmseg's FCN, OCR and ANN heads on the same features, those of HRNet at stride 4.

    python tools/analysis_tools/benchmark_heads.py [--width 48] [--size 512] [--device cuda]

For each head: parameters; multiply-adds as a multiple of one 3x3 convolution from 512 to 512 channels on the same grid; milliseconds of a forward
pass of one image (the median) and the head's share of backbone and head together; mebibytes that a training pass keeps for its backward, and the
head's share of them. "semantic pyramid" is the pyramid head without its unity head. OCRHead includes the FCNHead that draws its soft regions.
"""

import argparse
import statistics
import time

import torch
from mmengine.registry import MODELS, init_default_scope
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import mmpool_ext  # noqa: F401


class OCR(nn.Module):
    """mmseg's OCRHead behind the FCNHead whose map it needs."""

    def __init__(self, regions, ocr):
        super().__init__()
        self.regions, self.ocr = MODELS.build(regions), MODELS.build(ocr)

    def forward(self, inputs):
        """Map a tuple of feature maps to logits."""
        return self.ocr(inputs, self.regions(inputs))


def build_networks(width, num_classes):
    """Build HRNet of a width without weights, and the heads by name, for the concatenation of its four outputs."""
    widths = [width * 2**level for level in range(4)]
    stages = {
        f'stage{number}': dict(num_modules=modules, num_branches=number, block='BASIC', num_blocks=(4,) * number, num_channels=widths[:number])
        for number, modules in ((2, 1), (3, 4), (4, 3))
    }
    stages['stage1'] = dict(num_modules=1, num_branches=1, block='BOTTLENECK', num_blocks=(4,), num_channels=(64,))
    shared = dict(in_channels=sum(widths), in_index=0, channels=512, num_classes=num_classes, norm_cfg=dict(type='BN'))
    fcn = dict(shared, type='FCNHead', kernel_size=1, num_convs=1, concat_input=False)
    pyramid = dict(shared, type='PyramidRepresentationHead')
    two = dict(in_channels=[sum(widths)] * 2, in_index=(0, 0))
    heads = {
        'FCNHead': MODELS.build(fcn),
        'OCRHead': OCR(fcn, dict(shared, type='OCRHead', ocr_channels=256)),
        'ANNHead': MODELS.build(dict(shared, **two, type='ANNHead', project_channels=256)),
        'naive pyramid': MODELS.build(dict(pyramid, context=None)),
        'semantic pyramid': MODELS.build(dict(pyramid, supervision='auxiliary')),
        'pyramid': MODELS.build(pyramid),
    }
    return MODELS.build(dict(type='HRNet', extra=stages, norm_cfg=dict(type='BN'))), heads


def multiply_adds(module, input):
    """Count the multiply-adds of convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(input)
    return counter.get_total_flops() / 2


def synchronize():
    """Wait for the accelerator, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@torch.no_grad()
def milliseconds(module, input, repeats):
    """Return the median time of a forward pass in evaluation, after one that does not count."""
    module.eval()  # mmseg's HRNet returns nothing from eval() and train()
    times = []
    for _ in range(repeats + 1):
        synchronize()
        start = time.perf_counter()
        module(input)
        synchronize()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[1:])


def kept_mebibytes(module, input):
    """Return what a training pass keeps for its backward besides the input and the parameters."""
    known = {
        tensor.untyped_storage().data_ptr()
        for tensor in (*(input if isinstance(input, tuple) else (input,)), *module.parameters(), *module.buffers())
    }
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    module.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = module(input)  # alive until the sum is taken, so that no address is used twice
        mebibytes = sum(kept.values()) / 2**20
    del output
    return mebibytes


def measure(width, size, num_classes, repeats, device):
    """Return the rows of the table by head: a dict of numbers each."""
    backbone, heads = build_networks(width, num_classes)
    backbone = backbone.to(device)
    image = torch.randn(1, 3, size, size, device=device)
    features = (torch.randn(1, 15 * width, size // 4, size // 4, device=device),)
    whole = milliseconds(backbone, image, repeats), kept_mebibytes(backbone, image)
    unit = multiply_adds(nn.Conv2d(512, 512, 3, padding=1).to(device), torch.randn(1, 512, size // 4, size // 4, device=device))
    rows = {}
    for name, head in track(heads.items(), 'heads'):
        head = head.to(device)
        spent, kept = milliseconds(head, features, repeats), kept_mebibytes(head, features)
        rows[name] = dict(
            parameters=sum(parameter.numel() for parameter in head.parameters()),
            convolutions=multiply_adds(head, features) / unit,
            milliseconds=spent,
            time_share=100 * spent / (spent + whole[0]),
            kept_mebibytes=kept,
            kept_share=100 * kept / (kept + whole[1]),
        )
    return rows


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--width', type=int, default=48, help='of HRNet (default: %(default)s)')
    parser.add_argument('--size', type=int, default=512, help="image's edge in pixels, a multiple of 32 (default: %(default)s)")
    parser.add_argument('--num-classes', type=int, default=150, help='default: %(default)s')
    parser.add_argument('--repeats', type=int, default=5, help='timed passes (default: %(default)s)')
    parser.add_argument('--device', default='cpu', help='default: %(default)s')
    args = parser.parse_args()
    if args.size < 32 or args.size % 32:
        parser.error(f'benchmark_heads: size must be a multiple of 32, but got {args.size}')
    init_default_scope('mmseg')
    import mmseg.models  # noqa: F401

    rows = measure(**vars(args))
    title = f'HRNet-W{args.width}, {args.size} x {args.size}, {args.device} ({torch.get_num_threads()} CPU threads)'
    table = Table('', 'parameters', '3x3 convolutions', 'ms', '% of network', 'MiB kept', '% of network', title=title)
    for name, row in rows.items():
        table.add_row(name, f'{row["parameters"]:,}', *(f'{value:.2f}' for value in list(row.values())[1:]))
    Console(width=120).print(table)


if __name__ == '__main__':
    main()
