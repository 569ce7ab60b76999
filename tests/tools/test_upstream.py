"""Scripts of the installed codebases run from anywhere, and say what is wrong when they cannot."""

import subprocess
import sys
from pathlib import Path

import pytest
import upstream


def test_the_script_is_the_codebases_own():
    mmdet = pytest.importorskip('mmdet')
    assert upstream.script_path('mmdet', 'train') == Path(mmdet.__path__[0], '.mim', 'tools', 'train.py')


def test_an_unknown_script_names_the_known_ones():
    pytest.importorskip('mmdet')
    with pytest.raises(ValueError, match=r"upstream: script must be one of mmdet's \(.*test.*, train.*\), but got trian"):
        upstream.script_path('mmdet', 'trian')


def test_a_missing_codebase_is_named():
    with pytest.raises(ValueError, match='upstream: codebase must be installed, but got mmnowhere'):
        upstream.script_path('mmnowhere', 'train')


@pytest.mark.parametrize('codebase', ['mmdet', 'mmseg'])
def test_arguments_reach_the_script_and_bases_resolve(tmp_path, codebase):
    pytest.importorskip(codebase)
    (tmp_path / 'config.py').write_text(f"_base_ = '{codebase}::_base_/default_runtime.py'\n")
    command = [sys.executable, upstream.__file__, codebase, 'misc/print_config', 'config.py', '--cfg-options', 'answer=42']
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert 'answer = 42' in run.stdout
    assert f"default_scope = '{codebase}'" in run.stdout
