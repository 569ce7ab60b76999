#!/usr/bin/env python
"""Compile and link the extension with its CUDA kernels in a temporary folder; no GPU is needed.

Checks that the library loads, that every op has its CUDA kernels, and that those of the two usual windows and the maps of the instance norm spill
no registers into memory; prints the registers of each. Where there is no nvcc, or torch has no CUDA, it says so and ends well.

    python tools/misc/build_cuda.py                    # for Hopper
    TORCH_CUDA_ARCH_LIST=8.0 python tools/misc/build_cuda.py
"""

import argparse
import collections
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
CHECK = """
import importlib.util, sys, torch
spec = importlib.util.spec_from_file_location('_C', sys.argv[1])
spec.loader.exec_module(importlib.util.module_from_spec(spec))
ops = [schema.name for schema in torch._C._jit_get_all_schemas() if schema.name.startswith('mmpool_ext::')]
missing = [op for op in ops if not torch._C._dispatch_has_kernel_for_dispatch_key(op, 'CUDA')]
sys.exit(f'no CUDA kernel: {missing}' if missing or not ops else 0)
"""


def kernels(log):
    """Yield (description, registers, bytes spilled) of every kernel that ptxas reports."""
    rules = '|'.join(re.findall(r'struct (\w+)Op \{', (ROOT / 'csrc' / 'cuda' / 'plan.h').read_text()))
    pattern = r"entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers"
    for name, stored, loaded, registers in re.findall(pattern, log, re.DOTALL):
        spilled = int(stored) + int(loaded)
        channels = re.search(r'(SumPixels|SumParts|NormalizeRelu|SpreadGradient)I', name)
        if channels:
            yield f'instance norm {channels.group(1)}', int(registers), spilled
            continue
        op = 'gated lip' if 'GatedLip' in name or 'GatesI' in name else re.search(rf'\d({rules})[IE]', name).group(1).lower()
        lanes = re.search(r'Along(Channels|Columns)', name)
        kernel = re.search(r'(Forward|Backward|Measure|Gather)', name).group().lower()
        size = re.search(r'Li([23])ENS', name)
        yield f'{op} {kernel} ' + (f'k{size.group(1)} along {lanes.group(1).lower()}' if lanes else 'of any window'), int(registers), spilled


def main():
    """Run from the command line."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if torch.version.cuda is None or shutil.which('nvcc') is None:
        print(f'skipped: torch {torch.__version__} must have CUDA (it has {torch.version.cuda}) and nvcc be on PATH ({shutil.which("nvcc")})')
        return
    os.environ.setdefault('TORCH_CUDA_ARCH_LIST', '9.0')
    # torch compiles through ninja, which it looks for on PATH: in an environment that is not activated it lies beside python.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    flags = f'{os.environ.get("NVCC_APPEND_FLAGS", "")} -Xptxas -v'
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, 'setup.py', 'build_ext', '--build-temp', f'{folder}/objects', '--build-lib', folder]
        environment = {**os.environ, 'FORCE_CUDA': '1', 'NVCC_APPEND_FLAGS': flags, 'PATH': path}
        done = subprocess.run(command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            sys.exit(done.stdout)
        library = next(Path(folder).glob('mmpool_ext/_C*.so'))
        subprocess.run([sys.executable, '-c', CHECK, library], check=True)
        megabytes = library.stat().st_size / 2**20
    found = collections.defaultdict(list)
    for name, registers, spilled in kernels(done.stdout):
        found[name].append((registers, spilled))
    for name, seen in sorted(found.items()):
        print(f'{name:44} {len(seen):3} kernels, {min(seen)[0]:3} to {max(seen)[0]:3} registers, {sum(spilled for _, spilled in seen)} bytes spilled')
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    print(f'compiled and linked in {time.monotonic() - start:.0f} s ({cpu:.0f} s of CPU time), {megabytes:.1f} MB')
    usual = [spilled for name, seen in found.items() if re.search('along|NormalizeRelu|SpreadGradient', name) for _, spilled in seen]
    if not usual or any(usual):
        sys.exit('build_cuda: kernels along channels and columns and maps of the instance norm must be there and spill nothing')


if __name__ == '__main__':
    main()
