"""Notebooks run as they are, are saved with their outputs, and are small."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('sklearn')
NOTEBOOKS = sorted((Path(__file__).parents[1] / 'docs' / 'notebooks').glob('*.ipynb'))


def code_cells(path):
    return [cell for cell in json.loads(path.read_text())['cells'] if cell['cell_type'] == 'code']


def test_one_a_method():
    assert {path.stem for path in NOTEBOOKS} == {'dupsampling', 'lip', 'ppool', 'pyramid'}


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_is_saved_with_its_outputs(path):
    outputs = [output for cell in code_cells(path) for output in cell['outputs']]
    assert path.stat().st_size < 250_000
    assert sum('image/png' in output.get('data', {}) for output in outputs) >= 2
    assert not [output for output in outputs if output['output_type'] == 'error']
    assert [cell['execution_count'] for cell in code_cells(path)] == list(range(1, len(code_cells(path)) + 1))
    assert '/tmp' not in path.read_text()


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path, tmp_path):
    (tmp_path / 'cells.py').write_text('\n'.join(''.join(cell['source']) for cell in code_cells(path)))
    environment = dict(os.environ, MPLBACKEND='Agg', OMP_NUM_THREADS='1', PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run([sys.executable, 'cells.py'], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
