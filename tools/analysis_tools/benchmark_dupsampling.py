"""Time the DUpsampling decoder against the vanilla one and against mmseg's DepthwiseSeparableASPPHead, in one process, on random features.

The decoder is all after the atrous pyramid, up to logits of the image's size, bilinear resizing included. Reported is the median of the runs, which
alternate between the heads.
"""

import argparse
import statistics
import time

import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmseg.models.decode_heads import DepthwiseSeparableASPPHead
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmpool_ext import BilinearFusionHead, DUpsamplingHead

LOW, STRIDE, LAST = 256, 4, 2048  # b1u2c3 and the last feature map of a ResNet-50


def build_heads(num_classes, channels):
    """The three heads, initialised, for inference."""
    shared = dict(in_channels=[LOW, LAST], in_index=[0, 1], num_classes=num_classes, align_corners=True)
    heads = {
        'DUpsampling': DUpsamplingHead(**shared, upsample=dict(in_channels=channels, scale_factor=16, init='random')),
        'vanilla': BilinearFusionHead(**shared),
        'mmseg': DepthwiseSeparableASPPHead(
            c1_in_channels=LOW, c1_channels=48, in_channels=LAST, in_index=1, channels=256, dilations=(1, 6, 12, 18), num_classes=num_classes,
            norm_cfg=dict(type='BN'), align_corners=True,
        ),
    }  # fmt: skip
    for head in heads.values():
        head.init_weights()
        head.eval()
    return heads


def seconds(run, device):
    """Time of one call."""
    start = time.perf_counter()
    run()
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


@torch.no_grad()
def main():
    """Parse the command line, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', type=int, default=513, help='edge of the image (default: %(default)s)')
    parser.add_argument('--classes', type=int, default=21, help='number of classes (default: %(default)s)')
    parser.add_argument('--channels', type=int, default=64, help='channels that DUpsampling takes (default: %(default)s)')
    parser.add_argument('--runs', type=int, default=15, help='timed runs of each (default: %(default)s)')
    parser.add_argument('--device', type=torch.device, default='cpu', help='(default: %(default)s)')
    args = parser.parse_args()
    MMLogger.get_instance('mmengine', log_level='WARNING')  # not every initialised tensor's name
    init_default_scope('mmseg')
    torch.manual_seed(0)
    heads = {name: head.to(args.device) for name, head in build_heads(args.classes, args.channels).items()}
    fine, coarse = -(-args.size // STRIDE), -(-args.size // 16)
    inputs = [torch.randn(1, LOW, fine, fine, device=args.device), torch.randn(1, LAST, coarse, coarse, device=args.device)]
    metas = [dict(img_shape=(args.size, args.size))]
    runs = {f'{name}, head': lambda head=head: head.predict(inputs, metas, {}) for name, head in heads.items()}
    for name in ('DUpsampling', 'vanilla'):
        head = heads[name]
        encoded = head.encode(inputs)
        runs[f'{name}, decoder'] = lambda head=head, encoded=encoded: head.predict_by_feat(head.decode(encoded), metas)
    times, memory = {name: [] for name in runs}, {}
    for name, run in runs.items():
        run()
        if args.device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats(args.device)
            before = torch.cuda.memory_allocated(args.device)
            run()
            memory[name] = torch.cuda.max_memory_allocated(args.device) - before
        else:
            memory[name] = peak_cpu_bytes(run)
    for _ in track(range(args.runs), description='runs'):
        for name, run in runs.items():
            times[name].append(seconds(run, args.device))
    table = Table('', 'median ms', 'peak MiB', title=f'{args.size} x {args.size}, {args.classes} classes, batch of one, {args.device}')
    for name, values in times.items():
        table.add_row(name, f'{1000 * statistics.median(values):.1f}', f'{memory[name] / 2**20:.1f}')
    Console().print(table)
    ratio = statistics.median(times['DUpsampling, decoder']) / statistics.median(times['vanilla, decoder'])
    print(f'decoder time, DUpsampling over vanilla: {ratio:.3f}')


def peak_cpu_bytes(run):
    """Most bytes of tensors that one call held at a time, by the profiler's allocation events."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    held = peak = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == '[memory]']
    for event in sorted(events, key=lambda event: event.start_ns() if hasattr(event, 'start_ns') else event.start_us()):  # torch before 2.4 has no ns
        held += event.nbytes()
        peak = max(peak, held)
    return peak


if __name__ == '__main__':
    main()
