import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmpool_ext.ops import _extension

TOOL = Path(__file__).parents[2] / 'tools' / 'analysis_tools' / 'benchmark_ops.py'


@pytest.mark.skipif(not _extension.LOADED, reason='compiled ops are not built')
def test_table_json_and_chart(tmp_path):
    output = tmp_path / 'benchmark'
    command = [sys.executable, TOOL, output, '--shapes', '1x4x8x8', '--rounds', '2', '--no-compile', '--threads', '1']
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = json.loads(output.with_suffix('.json').read_text())['rows']
    assert 'compiled op' in table
    assert {row['contestant'] for row in rows} == {'compiled op', 'plain PyTorch', 'eager', 'eager, sliced', 'max_pool2d', 'avg_pool2d', 'copy'}
    assert all(row['kept_input_sizes'] == 0 for row in rows if 'kept_input_sizes' in row)
    assert output.with_suffix('.png').stat().st_size > 0
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2
    assert 'exists: choose another name or pass --overwrite' in again.stderr
