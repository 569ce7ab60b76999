"""The fast CPU kernels: vector code, threads, sanitizers, and their accuracy beside plain PyTorch in the same dtype."""

import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pooling_cases import LAYOUTS, OPS, run, windows

from mmpool_ext.ops import _extension, lip_pool2d, polynomial_pool2d

ROOT = Path(__file__).parents[2]
native = pytest.mark.skipif(not _extension.LOADED, reason=f'compiled ops are not built: {_extension.BUILD}')
parametrize_op = pytest.mark.parametrize('op', OPS.values(), ids=OPS)


@pytest.mark.skipif(shutil.which('c++') is None, reason='no C++ compiler')
def test_kernels_under_the_sanitizers(tmp_path):
    """Out-of-bounds access and undefined behaviour, in the kernels alone: they do not know of PyTorch."""
    flags = ['-std=c++17', '-O1', '-fno-trapping-math', '-fsanitize=address,undefined', '-fno-sanitize-recover=all', '-Wno-attributes']
    program = tmp_path / 'host_kernels'
    subprocess.run(['c++', *flags, '-I', ROOT / 'csrc', Path(__file__).with_name('host_kernels.cpp'), '-o', program], check=True, capture_output=True)
    result = subprocess.run([program], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@native
@pytest.mark.skipif(shutil.which('objdump') is None or os.uname().machine != 'x86_64', reason='no objdump for x86-64')
def test_every_clone_holds_vector_instructions():
    """Each leaf is compiled for AVX-512, AVX2 and the baseline; a loop that the compiler gave up on has packed instructions in none."""
    from mmpool_ext import _C

    listing = subprocess.run(['objdump', '-d', '--no-show-raw-insn', '-C', _C.__file__], capture_output=True, text=True, check=True).stdout
    registers = {'arch_x86_64_v4': 'zmm', 'arch_x86_64_v3': 'ymm', 'default': 'xmm'}
    leaves = (
        'exp_safe',
        'exp_gated',
        'multiply_slope',
        'block_moments',
        'normalize_relu',
        'block_sums',
        'spread_gradient',
        'largest',
        'exp_runs',
        'add_rows',
        'add_taps',
        'share_windows',
        'spread_taps',
        'spread_rows',
        'take_cells',
        'take_pairs',
        'all_steep',
        'rank_cells',
        'weigh',
        'weigh_and_slope',
        'average_cells',
        'spread_cells',
        'store_pairs',
        'add_pairs',
        'raise_top',
        'add_power',
        'divide_windows',
        'spread_power',
        'store_gradients',
    )
    found = {}
    for head, body in re.findall(r'^[0-9a-f]+ <(.*)>:\n((?:.+\n)+)', listing, re.M):
        name, clone = re.search(r'(\w+)(?:<.*>)?\(', head.replace('(anonymous namespace)::', '')), re.search(r'\[clone \.(\w+)\]$', head)
        if name and clone and name[1] in leaves and clone[1] in registers:
            packed = len(re.findall(rf'(?:ps|pd|d|q) .*%{registers[clone[1]]}', body))
            found[name[1], clone[1]] = max(packed, found.get((name[1], clone[1]), 0))
    assert set(found) == {(leaf, clone) for leaf in leaves for clone in registers}
    assert {key: count for key, count in found.items() if count < 3} == {}


def _ticks():
    return {task: int(Path(f'/proc/self/task/{task}/stat').read_text().rsplit(')', 1)[1].split()[11]) for task in os.listdir('/proc/self/task')}


@native
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason='one core')
def test_more_than_one_thread_runs():
    """``at::parallel_for`` is serial, silently, in an extension compiled without -fopenmp: count the threads that spend time."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        input = torch.rand(8, 64, 56, 56)
        lip_pool2d(input, input, backend='native')
        start = _ticks()
        for _ in range(400):
            lip_pool2d(input, input, backend='native')
        busy = {task: spent - start.get(task, 0) for task, spent in _ticks().items()}
        assert sorted(busy.values())[-2] > 0.2 * busy[str(threading.get_native_id())]
    finally:
        torch.set_num_threads(before)


@native
@parametrize_op
@given(data=st.data(), layout=st.sampled_from(sorted(LAYOUTS)), seed=st.integers(0, 2**16))
@settings(max_examples=60)
def test_float32_errs_no_more_than_twice_as_much_as_plain_pytorch(op, data, layout, seed):
    shape, keywords = data.draw(windows(dilated=op.name != 'polynomial_pool2d'))
    scale = data.draw(st.sampled_from([1.0, 30.0])) if op.name == 'lip_pool2d' else 1.0  # logits far apart leave windows below the row's largest
    tensors = op.arguments(shape, keywords, torch.Generator().manual_seed(seed))
    input, weight, grad_output = (LAYOUTS[layout](tensor).float() for tensor in (tensors[0], scale * tensors[1], tensors[2]))
    rounding = 8 + (weight.abs().max() if op.weight_per_window else 0)  # alpha multiplies the rounding of a logarithm
    exact = op.oracle(input, weight, grad_output, **keywords)
    ours, plain = (run(op, input, weight, grad_output, backend=backend, **keywords) for backend in ('native', 'torch'))
    for got, other, expected in zip(ours, plain, exact, strict=True):
        error, allowed = (got - expected).abs().max(), 2 * (other - expected).abs().max()
        assert error <= allowed + rounding * torch.finfo(torch.float32).eps * expected.abs().max().clamp(min=1)


@native
@given(seed=st.integers(0, 2**16), layout=st.sampled_from(sorted(LAYOUTS)), shift=st.sampled_from([0.0, 1e4, -1e4, 1e8]))
def test_lip_with_extreme_logits(seed, layout, shift):
    """Windows that the fast path cannot be trusted with: masked, far below their row, NaN, infinite; in the midst of ordinary ones."""
    generator = torch.Generator().manual_seed(seed)
    input, kind = torch.randn(2, 3, 9, 11, generator=generator), torch.randint(20, (2, 3, 9, 11), generator=generator)
    logit = 3 * torch.randn(2, 3, 9, 11, generator=generator) + shift
    for value, code in ((-float('inf'), 0), (float('nan'), 1), (float('inf'), 2), (-3e38, 3), (shift - 200, 4), (shift + 100, 5)):
        logit[(kind == code) & ((code not in (1, 2)) | (torch.rand(kind.shape, generator=generator) < 0.1))] = value
    input, logit = LAYOUTS[layout](input), LAYOUTS[layout](logit)
    grad_output = torch.randn(2, 3, 5, 6, generator=generator)
    for got, expected in zip(run(OPS['lip'], input, logit, grad_output), OPS['lip'].oracle(input, logit, grad_output), strict=True):
        torch.testing.assert_close(got, expected.float(), equal_nan=True, rtol=2e-5, atol=2e-5)


@native
@given(seed=st.integers(0, 2**16), layout=st.sampled_from(sorted(LAYOUTS)), steep=st.booleans(), edge=st.sampled_from([2, 3]))
def test_p_pooling_with_extreme_values(seed, layout, steep, edge):
    """Zeros, tiny and huge values beside each other; with ``steep`` alpha alone, by kernels that do not tell them apart."""
    generator = torch.Generator().manual_seed(seed)
    input, kind = torch.rand(2, 3, 8, 10, generator=generator), torch.randint(16, (2, 3, 8, 10), generator=generator)
    large = seed % 2  # not beside tiny ones: their ratio, which the op is defined by, would be no float32
    for code, value in enumerate((0.0, 0.0, 1e-5 if large else 1e-42, 1e-5 if large else 1e-30, -1.0)):
        input[kind == code] = value
    input[kind == 5] *= 1e30 if large else 1.0
    choice = torch.tensor([2.0, 2.5, 35.0, 50.0] if steep else [0.0, 1.0, 1 + 1e-6, 2.0, 35.0, 50.0])
    alpha = choice[torch.randint(len(choice), (2, 3, 4, 5), generator=generator)]
    input, alpha = LAYOUTS[layout](input), LAYOUTS[layout](alpha)
    op, grad_output = OPS['polynomial'], torch.randn(2, 3, 4, 5, generator=generator)
    keywords = {'kernel_size': (edge, edge), 'stride': (2, 2), 'padding': (edge - 2, edge - 2)}
    largest = F.max_pool2d(input.double(), edge, 2, edge - 2).clamp(min=1)  # alpha's gradient and its rounding are in units of it
    results, oracle = run(op, input, alpha, grad_output, **keywords), op.oracle(input, alpha, grad_output, **keywords)
    for got, expected, unit in zip(results, oracle, (1, 1, largest), strict=True):
        got, expected = got.double() / unit, expected / unit
        torch.testing.assert_close(got, expected, rtol=5e-5, atol=5e-5 * max(1.0, expected.abs().max().item()))


@native
def test_few_large_planes_are_shared_out():
    """One plane and several threads: a task is then a part of the plane's rows."""
    input = torch.rand(1, 1, 300, 40, dtype=torch.float32, generator=torch.Generator().manual_seed(0))
    grad_output = torch.rand(1, 1, 150, 20)
    for op, weight in ((OPS['lip'], 5 * input), (OPS['polynomial'], 20 * F.max_pool2d(input, 2))):
        keywords = {'kernel_size': (3, 3), 'stride': (2, 2), 'padding': (1, 1)}
        for got, expected in zip(run(op, input, weight, grad_output, **keywords), op.oracle(input, weight, grad_output, **keywords), strict=True):
            torch.testing.assert_close(got.double(), expected, rtol=2e-5, atol=2e-5)


@native
def test_nothing_but_the_inputs_is_kept_for_backward():
    kept = []
    input, logit, alpha = (torch.rand(shape, requires_grad=True) for shape in ((2, 3, 8, 8), (2, 3, 8, 8), (2, 3, 4, 4)))
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.data_ptr()), lambda tensor: tensor):
        lip_pool2d(input, logit)
        polynomial_pool2d(input, alpha)
    assert set(kept) == {tensor.data_ptr() for tensor in (input, logit, alpha)}


@native
def test_more_than_2_to_the_31_elements():
    size = 2**31 + 2**16
    needed = 5 * size  # input and logit are bfloat16 and one tensor, output a quarter; some room
    if os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') < needed:
        pytest.skip(f'{needed >> 30} GiB of free memory are not there')
    input = torch.zeros(1, 1, size // 2**11, 2**11, dtype=torch.bfloat16)
    input[..., -2:, :] = torch.rand(2, 2**11)
    output = lip_pool2d(input, input, kernel_size=2, padding=0)
    assert torch.equal(output[..., -1:, :], lip_pool2d(input[..., -2:, :], input[..., -2:, :], kernel_size=2, padding=0))
