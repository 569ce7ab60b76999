import sys

import pytest
import torch

pytest.importorskip('mmseg')
import benchmark_dupsampling
from mmengine.registry import DefaultScope


def test_prints_each_head_and_decoder_and_their_ratio(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['benchmark_dupsampling.py', '--size', '65', '--classes', '5', '--channels', '16', '--runs', '2'])
    with DefaultScope.overwrite_default_scope('mmengine'):  # the tool sets one
        benchmark_dupsampling.main()
    said = capsys.readouterr().out
    assert all(f'{name}, head' in said for name in ('DUpsampling', 'vanilla', 'mmseg'))
    assert all(f'{name}, decoder' in said for name in ('DUpsampling', 'vanilla'))
    assert float(said.split('decoder time, DUpsampling over vanilla:')[1]) > 0


def test_peak_is_the_most_that_is_held_at_a_time():
    def run():
        for _ in range(3):
            torch.zeros(2**20, dtype=torch.uint8) + 1  # two maps at a time, not six

    assert 2 * 2**20 <= benchmark_dupsampling.peak_cpu_bytes(run) < 3 * 2**20
