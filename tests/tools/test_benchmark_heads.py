import sys

import pytest
import torch
from torch import nn

pytest.importorskip('mmseg')
import benchmark_heads
from mmengine.registry import DefaultScope


def main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['benchmark_heads.py', *map(str, arguments)])
    with DefaultScope.overwrite_default_scope('mmengine'):  # the tool sets one
        benchmark_heads.main()


def test_table_has_a_row_for_each_head(monkeypatch, capsys):
    main(monkeypatch, '--width', 18, '--size', 64, '--repeats', 1)
    said = capsys.readouterr().out
    assert all(name in said for name in ('OCRHead', 'ANNHead', 'semantic pyramid'))


def test_size(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        main(monkeypatch, '--size', 100)
    assert 'benchmark_heads: size must be a multiple of 32, but got 100' in capsys.readouterr().err


def test_kept_mebibytes_counts_what_the_backward_reads():

    module = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 1, 1, bias=False))
    input = torch.randn(1, 1, 256, 1024)
    assert benchmark_heads.kept_mebibytes(module, input) == 4  # one map of 4 channels: the ReLU's result, which the second convolution reads as well


def test_multiply_adds_of_a_convolution():

    assert benchmark_heads.multiply_adds(nn.Conv2d(3, 5, 3, padding=1), torch.randn(1, 3, 8, 8)) == 9 * 3 * 5 * 64
