import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmpool_ext.ops import _extension

TOOL = Path(__file__).parents[2] / 'tools' / 'analysis_tools' / 'benchmark_networks.py'
SMALL = ['--batch', '1', '--size', '64', '64', '--rounds', '1', '--threads', '1', '--device', 'cpu']


@pytest.mark.skipif(not _extension.LOADED, reason='compiled ops are not built')
def test_table_json_and_chart(tmp_path):
    output = tmp_path / 'benchmark'
    command = [sys.executable, TOOL, output, *SMALL]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result = json.loads(output.with_suffix('.json').read_text())
    assert result['machine']['dtype'] == 'float32'
    names = ['ResNet-50', 'average pooling', 'LIP', 'LIP in parts', 'LIP in plain PyTorch', 'LIP without norm and gate']
    assert [(row['phase'], row['contestant']) for row in result['rows']] == [(phase, name) for phase in ('step', 'inference') for name in names]
    assert all(name in table for name in names)
    peak = {row['contestant']: row['peak_mib'] for row in result['rows'] if row['phase'] == 'step'}
    assert peak['LIP'] < peak['LIP in parts'] < peak['LIP in plain PyTorch']
    assert output.with_suffix('.png').stat().st_size > 0
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2
    assert 'exists: choose another name or pass --overwrite' in again.stderr


def test_detector(tmp_path):
    pytest.importorskip('mmdet')
    output = tmp_path / 'benchmark'
    options = [*SMALL, '--task', 'retinanet', '--autocast', 'bfloat16', '--channels-last', '--contestants', 'ResNet-50', 'LIP']
    subprocess.run([sys.executable, TOOL, output, *options], check=True)
    rows = json.loads(output.with_suffix('.json').read_text())['rows']
    assert len(rows) == 4
    assert all(row['ms'] > 0 for row in rows)
