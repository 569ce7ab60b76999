"""The table of compatibility is what the committed results say."""

import json
import subprocess
import sys
from pathlib import Path

import ops_matrix
import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'misc' / 'ops_matrix.py'


def test_the_page_is_written_from_the_results(tmp_path, monkeypatch):
    page = tmp_path / 'compatibility.md'
    committed = (ROOT / 'docs' / 'compatibility.md').read_text()
    page.write_text(committed)
    monkeypatch.setattr(ops_matrix, 'PAGE', page)
    ops_matrix.write_page()
    assert page.read_text() == committed
    assert committed.count('\n| 3.') == len(list(ops_matrix.RESULTS.glob('*.json'))) > 0
    assert not list(tmp_path.glob('*.partial'))


def test_no_committed_result_has_a_failure():
    for path in ops_matrix.RESULTS.glob('*.json'):
        result = json.loads(path.read_text())
        assert result['passed'] > 100
        assert result['failures'] == []


def test_an_interpreter_of_pyenv_s_is_found_and_another_is_an_error(tmp_path, monkeypatch):
    inside = tmp_path / 'versions' / '3.99.1' / 'bin'
    inside.mkdir(parents=True)
    (inside / 'python').symlink_to(sys.executable)
    monkeypatch.setenv('PYENV_ROOT', str(tmp_path))
    assert str(ops_matrix.find_python('python3.99')) == str(inside / 'python')
    assert ops_matrix.find_python(sys.executable) == sys.executable
    with pytest.raises(SystemExit, match=r'--python must be an interpreter that runs, but got python3\.98; install it'):
        ops_matrix.find_python('python3.98')


@pytest.mark.parametrize('torch', ['2.1', 'newest', ''])
def test_a_release_is_asked_for(torch):
    done = subprocess.run([sys.executable, TOOL, '--torch', torch], capture_output=True, text=True)
    assert done.returncode == 2
    assert f'--torch must be a release such as 2.1.2, but got {torch}' in done.stderr
