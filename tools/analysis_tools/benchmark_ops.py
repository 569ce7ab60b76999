#!/usr/bin/env python
"""Time the pooling ops, forward and forward+backward, and their alternatives.

Every alternative runs four times per round. The first run does not count, because the caches and the allocator are in the state that another one
left. Rounds are repeated, so that a slow moment of the machine affects all of them. `plain PyTorch` is what runs where the extension is not
built, right for every input; `eager` is the shortest way to write the formula, and what torch.compile gets. Reported are median and quartiles in
milliseconds, how many times longer an alternative takes than the compiled op, and the peak memory of a training step (allocated on top of the
inputs, in sizes of the input; what torch.compile allocates inside its graph counts too). max_pool2d and avg_pool2d are there for comparison and
compute something else, and `copy` moves as many bytes as the op has to read and write.

On a GPU the calls are captured in a CUDA graph over two sets of buffers in turns: the kernels are timed, not their launch from Python, and no cache
holds what a call before has read. `copy` over a contestant is its share of the memory limit. Networks have a tool of their own,
`benchmark_networks.py`.

    python tools/analysis_tools/benchmark_ops.py work_dirs/benchmark            # table; work_dirs/benchmark.json and .png
"""

import argparse
import json
import os
import platform
import subprocess
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table

import mmpool_ext
from mmpool_ext.files import whole_file
from mmpool_ext.ops import lip_pool2d, polynomial_pool2d

# On a GPU inputs of 205 to 411 MB in float32: several times its L2 cache.
SHAPES = {
    'cpu': ((8, 64, 112, 112), (8, 256, 56, 56), (8, 512, 28, 28)),
    'cuda': ((32, 64, 224, 224), (32, 256, 112, 112), (32, 512, 56, 56)),
}
DTYPES = {'float32': torch.float32, 'float16': torch.float16, 'bfloat16': torch.bfloat16}


def eager_lip(input, logit):
    """LIP as its authors write it in PyTorch."""
    weight = logit.exp()
    return F.avg_pool2d(input * weight, 3, 2, 1) / F.avg_pool2d(weight, 3, 2, 1)


def eager_polynomial(input, alpha):
    """P-pooling as a softmax over the unfolded windows."""
    cells = F.unfold(input, 2, stride=2).view(*input.shape[:2], 4, *alpha.shape[2:])
    return ((alpha.unsqueeze(2) * cells.clamp(min=1e-6).log()).softmax(2) * cells).sum(2)


def eager_polynomial_sliced(input, alpha):
    """The same over four strided slices: less to copy."""
    cells = torch.stack([input[..., y::2, x::2] for y in (0, 1) for x in (0, 1)])
    return ((alpha * cells.clamp(min=1e-6).log()).softmax(0) * cells).sum(0)


OPS = {
    'lip_pool2d k3 s2 p1': (lip_pool2d, eager_lip, (3, 2, 1)),
    'polynomial_pool2d k2 s2': (polynomial_pool2d, eager_polynomial, (2, 2, 0)),
}


def copy_floor(elements, dtype, device):
    """Move `elements` of them, half read and half written."""
    source, target = (torch.zeros(elements // 2, dtype=dtype, device=device) for _ in range(2))
    return lambda: target.copy_(source)


class Replay:
    """Functions, the same work on different buffers, captured in turns in a CUDA graph; a call runs them ``calls`` times in all."""

    def __init__(self, functions, calls=12):
        self.calls, self.graph = calls, torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # what a first call sets up is no part of the graph
            for function in functions:
                function()
                function()
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(self.graph):
            for index in range(calls):
                functions[index % len(functions)]()

    def __call__(self):
        """Run the graph."""
        self.graph.replay()


def contestants(name, shape, dtype, layout, device, compiled):
    """Return {name: {phase: callables without arguments}}, the same work on other buffers, and the size of the input in bytes."""
    op, eager, window = OPS[name]
    generator = torch.Generator().manual_seed(0)
    draw = lambda *size: torch.randn(size, generator=generator).to(device, dtype).contiguous(memory_format=layout)  # noqa: E731
    input = draw(*shape)
    size = F.max_pool2d(input, *window).shape
    if op is lip_pool2d:
        weight = 12 * draw(*shape).sigmoid()
        moved = {'forward': 2 + 0.25, 'forward+backward': 2 + 0.25 + 4 + 0.25}
    else:
        input = input.relu()
        weight = 20 + draw(*size)
        moved = {'forward': 1 + 0.25 + 0.25, 'forward+backward': 1 + 0.25 + 0.25 + 2 + 3 * 0.25}
    grad = draw(*size)
    functions = {
        'compiled op': lambda input, weight: op(input, weight, *window, backend='native'),
        'plain PyTorch': lambda input, weight: op(input, weight, *window, backend='torch'),
        'eager': eager,
        **({'eager, sliced': eager_polynomial_sliced} if eager is eager_polynomial else {}),
        'max_pool2d': lambda input, weight: F.max_pool2d(input, *window),
        'avg_pool2d': lambda input, weight: F.avg_pool2d(input, *window),
    }
    if compiled:
        torch._dynamo.reset()
        functions['torch.compile'] = torch.compile(eager_polynomial_sliced if eager is eager_polynomial else eager)

    def phases(function):
        tensors = [tensor.clone().requires_grad_() for tensor in (input, weight)]

        def forward():
            with torch.no_grad():
                function(*tensors)

        def step():
            torch.autograd.grad(function(*tensors), tensors, grad, allow_unused=True)

        return {'forward': forward, 'forward+backward': step}

    copies = 2 if device.type == 'cuda' else 1
    sets = {key: [phases(function) for _ in range(copies)] for key, function in functions.items()}
    sets['copy'] = [{phase: copy_floor(int(share * input.numel()), dtype, device) for phase, share in moved.items()} for _ in range(copies)]
    runs = {key: {phase: [one[phase] for one in of_buffers] for phase in moved} for key, of_buffers in sets.items()}
    return runs, input.numel() * input.element_size()


def once(function, device):
    """Milliseconds of one call."""
    if device.type == 'cuda':
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        function()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / getattr(function, 'calls', 1)
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def quartiles(times):
    """Lower quartile, median, upper quartile."""
    return torch.tensor(times, dtype=torch.float64).quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()


def time_all(functions, rounds, device, done=lambda: None):
    """Time callables in turns: {name: [lower quartile, median, upper quartile]}; ``done`` is called after each turn."""
    times = {name: [] for name in functions}
    for index in range(rounds + 1):
        for name, function in functions.items():
            spent = [once(function, device) for _ in range(4)]
            if index >= 1:  # warm-up
                times[name] += spent[1:]
            done()
    return {name: quartiles(values) for name, values in times.items()}


def peak_memory(function, device):
    """Bytes allocated at most during a call, on top of what there was."""
    function()
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        function()
    events, changes = list(profile.profiler.kineto_results.experimental_event_tree()), []
    while events:
        event = events.pop()
        events.extend(event.children)
        if event.tag == torch._C._profiler._EventType.Allocation:
            changes.append((event.start_time_ns, event.extra_fields.alloc_size))
    now = peak = 0
    for _, change in sorted(changes):
        now += change
        peak = max(peak, now)
    return peak


def kept_for_backward(name, shape, dtype, device):
    """Bytes that the op's graph holds beyond its two inputs, over the input's bytes."""
    op, _, window = OPS[name]
    input = torch.rand(shape, dtype=dtype, device=device, requires_grad=True)
    size = F.max_pool2d(input, *window).shape
    weight = torch.rand(shape if op is lip_pool2d else size, dtype=dtype, device=device, requires_grad=True)
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.setdefault(tensor.data_ptr(), tensor), lambda tensor: tensor):
        op(input, weight, *window, backend='native')
    own = {input.data_ptr(), weight.data_ptr()}
    return sum(tensor.nbytes for pointer, tensor in kept.items() if pointer not in own) / input.nbytes


def hardware(device):
    """Say what ran."""
    commit = subprocess.run(['git', 'describe', '--always', '--dirty'], capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip()
    cpu = next(
        (line.split(':')[1].strip() for line in Path('/proc/cpuinfo').read_text().splitlines() if line.startswith('model name')), platform.processor()
    )
    return {
        'device': torch.cuda.get_device_name() if device.type == 'cuda' else f'{cpu}, {torch.get_num_threads()} threads of {os.cpu_count()}',
        'torch': torch.__version__,
        'mmpool_ext': mmpool_ext.__version__,
        'commit': commit or 'unknown',
        'load': os.getloadavg()[0],
    }


def benchmark_ops(args, device, layout):
    """Time every op on every shape: a list of rows."""
    rows = []
    cases = [(name, shape) for name in OPS for shape in args.shapes or SHAPES[device.type]]
    for name, shape in track(cases, description='ops', console=Console(stderr=True)):
        runs, size = contestants(name, shape, DTYPES[args.dtype], layout, device, not args.no_compile)
        for phase in ('forward', 'forward+backward'):
            functions = {key: Replay(phases[phase]) if device.type == 'cuda' else phases[phase][0] for key, phases in runs.items()}
            times = time_all(functions, args.rounds, device)
            for contestant, (low, median, high) in times.items():
                row = {'op': name, 'shape': list(shape), 'phase': phase, 'contestant': contestant}
                row |= {'ms': median, 'ms_quartiles': [low, high], 'times_slower': median / times['compiled op'][1]}
                row['share_of_copy'] = times['copy'][1] / median
                if phase == 'forward+backward' and contestant != 'copy':
                    row['peak_input_sizes'] = peak_memory(runs[contestant][phase][0], device) / size
                    if contestant == 'compiled op':
                        row['kept_input_sizes'] = kept_for_backward(name, shape, DTYPES[args.dtype], device)
                rows.append(row)
    return rows


def write(rows, facts, output):
    """Print the table; write JSON and bar chart, each under its final name only once it is complete."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    table = Table(title=' | '.join(f'{key} {value}' for key, value in facts.items()), title_justify='left')
    columns = {'share_of_copy': 'of copy', 'peak_input_sizes': 'peak', 'kept_input_sizes': 'kept', 'peak_mib': 'peak MiB'}
    columns = {key: heading for key, heading in columns.items() if any(key in row for row in rows)}
    for heading in ('op', 'shape', 'phase', 'contestant', 'ms', 'quartiles', 'x', *columns.values()):
        table.add_column(heading, justify='right' if heading in ('ms', 'x', *columns.values()) else 'left', no_wrap=True)
    for row in rows:
        low, high = row['ms_quartiles']
        extra = [f'{row[key]:.2f}' if key in row else '' for key in columns]
        size = 'x'.join(map(str, row['shape']))
        table.add_row(
            row['op'], size, row['phase'], row['contestant'], f'{row["ms"]:.2f}', f'{low:.2f}-{high:.2f}', f'{row["times_slower"]:.2f}', *extra
        )
    Console(width=170).print(table)

    groups = list(dict.fromkeys((row['op'], row['phase'], tuple(row['shape'])) for row in rows))
    figure, axes = plt.subplots(1, len(groups), figsize=(2.6 * len(groups), 4), squeeze=False)
    for axis, group in zip(axes[0], groups, strict=True):
        bars = [row for row in rows if (row['op'], row['phase'], tuple(row['shape'])) == group]
        names, values = [row['contestant'] for row in bars], [row['ms'] for row in bars]
        axis.bar(names, values, color=['tab:blue' if name in ('compiled op', 'LIP') else 'silver' for name in names])
        axis.set_title(f'{group[0]}\n{group[1]}\n{"x".join(map(str, group[2]))}', fontsize=8)
        axis.tick_params(axis='x', labelrotation=90, labelsize=8)
    axes[0][0].set_ylabel('milliseconds, median')
    figure.tight_layout()

    with whole_file(output.with_name(f'{output.name}.json')) as unfinished:
        unfinished.write_text(json.dumps({'machine': facts, 'rows': rows}, indent=1))
    with whole_file(output.with_name(f'{output.name}.png')) as unfinished:
        figure.savefig(unfinished, dpi=120)


def main():
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shape = lambda text: tuple(map(int, text.split('x')))  # noqa: E731
    parser.add_argument(
        'output', type=Path, nargs='?', default='work_dirs/benchmark_ops', help='OUTPUT.json and OUTPUT.png are written (default: %(default)s)'
    )
    parser.add_argument(
        '--shapes',
        type=shape,
        nargs='+',
        metavar='NxCxHxW',
        help='even H and W (default on a CPU: 8x64x112x112 8x256x56x56 8x512x28x28; on a GPU four times the batch, twice H and W)',
    )
    parser.add_argument('--dtype', choices=DTYPES, default='float32')
    parser.add_argument('--channels-last', action='store_true', help='lay the tensors out in channels_last')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='(default: %(default)s)')
    parser.add_argument('--threads', type=int, help='CPU threads (default: what torch takes)')
    parser.add_argument('--rounds', type=int, default=5, help='rounds of three timed runs of each contestant (default: %(default)s)')
    parser.add_argument('--no-compile', action='store_true', help='leave torch.compile out')
    parser.add_argument('--overwrite', action='store_true', help='replace OUTPUT.json and OUTPUT.png')
    args = parser.parse_args()
    taken = [str(args.output) + suffix for suffix in ('.json', '.png') if Path(str(args.output) + suffix).exists()]
    if taken and not args.overwrite:
        parser.error(f'{taken[0]} exists: choose another name or pass --overwrite')
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    facts = {'dtype': args.dtype, 'layout': 'channels_last' if args.channels_last else 'contiguous'}
    write(benchmark_ops(args, device, layout), hardware(device) | facts, args.output)


if __name__ == '__main__':
    main()
