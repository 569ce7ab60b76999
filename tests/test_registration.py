import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import mmpool_ext

CODEBASES = ('mmdet', 'mmseg', 'mmpretrain')

BLOCK = """
import importlib.abc, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {blocked!r}:
            raise {error}

sys.meta_path.insert(0, Block())
"""


def run(code):
    """Run code in a fresh interpreter and return what it printed."""
    done = subprocess.run([sys.executable, '-c', textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_import_brings_no_codebase():
    print_loaded = f'import sys, mmpool_ext; print(sorted(set({CODEBASES!r}) & set(sys.modules)))'
    assert run(print_loaded).strip() == '[]'


def test_ops_need_torch_alone():
    code = BLOCK.format(blocked={'mmengine', 'mmcv', *CODEBASES}, error='ModuleNotFoundError(name)')
    code += textwrap.dedent("""
        import importlib.util
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *args: None if name == 'mmengine' else find(name, *args)
        import torch
        from mmpool_ext.ops import lip_pool2d
        print(lip_pool2d(torch.ones(1, 1, 4, 4), torch.rand(1, 1, 4, 4)).mean())
    """)
    assert 'tensor(1.' in run(code)


@pytest.mark.parametrize('codebase', CODEBASES)
def test_works_beside_one_codebase_alone(codebase):
    pytest.importorskip(codebase)
    code = BLOCK.format(blocked=set(CODEBASES) - {codebase}, error="ModuleNotFoundError(f'No module named {name!r}')")
    code += textwrap.dedent(f"""
        import torch
        from importlib import import_module
        from mmengine.config import Config
        from mmengine.registry import DefaultScope
        open('config.py', 'w').write("custom_imports = dict(imports=['mmpool_ext'], allow_failed_imports=False)")
        Config.fromfile('config.py')
        models = import_module('{codebase}.registry').MODELS
        names = ['LIPResNet', 'mmpool_ext.LIPResNet']
        import mmpool_ext
        with DefaultScope.overwrite_default_scope('{codebase}'):
            networks = [models.build(dict(type=name, depth=14, base_channels=4)) for name in [*names, mmpool_ext.LIPResNet]]
        print({{type(network).__name__ for network in networks}}, networks[0](torch.rand(2, 3, 32, 32))[-1].shape[1])
    """)
    assert "{'LIPResNet'} 128" in run(f'import os, tempfile\nos.chdir(tempfile.mkdtemp())\n{code}')


def test_broken_mmseg_does_not_stop_a_detector():
    pytest.importorskip('mmdet')
    code = BLOCK.format(blocked={'mmseg'}, error="AssertionError('MMCV is incompatible')")
    code += textwrap.dedent("""
        import mmpool_ext
        from mmdet.registry import MODELS
        print(type(MODELS.build(dict(type='LIPResNet', depth=14, base_channels=4))).__name__)
        try:
            mmpool_ext.lazy.load(HEAD)
        except RuntimeError as error:
            print(error)
    """)
    head = next(name for name, (_, _, codebase) in mmpool_ext.lazy.LAZY.items() if codebase == 'mmseg')
    printed = run(code.replace('HEAD', repr(head)))
    assert 'LIPResNet' in printed
    assert f'{head}: mmseg must be importable, but importing it raised AssertionError: MMCV is incompatible' in printed


def test_report_names_versions_configs_and_names():
    printed = run("import runpy, sys; sys.argv = ['']; runpy.run_module('mmpool_ext', run_name='__main__')")
    assert 'MODELS.LIPResNet -> mmpool_ext.backbones.lip_resnet.LIPResNet' in printed
    assert 'compiled ops' in printed
    assert '/configs' in printed
    for package in ('torch ', 'mmengine ', 'mmdet ', 'timm '):
        assert package in printed


def test_report_says_what_is_broken_or_switched_off():
    code = """
        import runpy, sys
        from mmpool_ext.ops import _extension
        sys.argv = ['']
        _extension.BROKEN, _extension.WANTED = {values}
        runpy.run_module('mmpool_ext', run_name='__main__')
    """
    assert 'compiled ops BROKEN: the reason\n' in run(code.format(values="'the reason', True"))
    assert 'compiled ops switched off by MMPOOL_EXT_WITH_OPS (' in run(code.format(values="'', False"))


def test_report_is_printed_with_a_binary_of_another_torch(tmp_path):
    """The whole way: a file that says it was built for torch 1.0 lies where _C would."""
    from importlib.machinery import EXTENSION_SUFFIXES

    package = tmp_path / 'mmpool_ext'
    shutil.copytree(Path(mmpool_ext.__file__).parent, package, ignore=shutil.ignore_patterns('.mim', '_C*', '__pycache__'))
    (package / f'_C{EXTENSION_SUFFIXES[0]}').write_bytes(b'mmpool_ext was built for torch 1.0.0\0')
    environment = dict(os.environ, PYTHONPATH=str(tmp_path))
    done = subprocess.run([sys.executable, '-m', 'mmpool_ext'], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert f'at {package}\n' in done.stdout
    assert 'compiled ops BROKEN: mmpool_ext: the compiled ops must be built for the torch that runs, but ' in done.stdout
    assert 'MODELS.LIPResNet' in done.stdout


def test_report_names_a_gpu_without_cuda_kernels(monkeypatch):
    import torch

    from mmpool_ext import __main__ as report
    from mmpool_ext.ops import _extension

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(_extension, 'KERNELS', {('lip_pool2d', 'cpu')})
    assert 'cuda: not built, so GPUs run the plain-PyTorch forms: python setup.py' in report.compiled_ops()
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert report.compiled_ops() == 'cpu: lip_pool2d'


@pytest.mark.parametrize(
    ('module', 'message'),
    [
        ('cv2_gone', 'mmpool_ext: small needs cv2_gone, which is not installed: pip install cv2_gone'),
        ('sklearn.gone', 'mmpool_ext: small needs sklearn, which is not installed: pip install scikit-learn'),
    ],
)
def test_a_tool_names_the_package_that_it_lacks(tmp_path, monkeypatch, module, message):
    from mmpool_ext import __main__ as report

    tool = tmp_path / 'small.py'
    monkeypatch.setattr(report, 'tools', lambda: dict(small=tool))
    monkeypatch.setattr(sys, 'argv', sys.argv[:])
    monkeypatch.setattr(sys, 'path', sys.path[:])
    tool.write_text(f'import {module}\n')
    with pytest.raises(SystemExit, match=f'^{re.escape(message)}$'):
        report.run_tool('small', [])
    tool.write_text(f'def main():\n    import {module}\nmain()\n')
    with pytest.raises(ModuleNotFoundError, match='gone'):
        report.run_tool('small', [])


@pytest.mark.parametrize('missing', ['mmseg', 'timm'])
def test_names_of_a_missing_package_are_absent(missing):
    """No exception but AttributeError from hasattr, dir, import * and pydoc; the reason is a warning."""
    code = BLOCK.format(blocked={missing}, error="ModuleNotFoundError(f'No module named {name!r}')")
    names = [name for name, (_, _, codebase) in mmpool_ext.lazy.LAZY.items() if codebase == missing]
    assert names
    code += textwrap.dedent(f"""
        import importlib.util, warnings
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *args: None if name == {missing!r} else find(name, *args)
        import mmpool_ext
        from mmpool_ext import *
        import pydoc
        assert 'LIPResNet' in pydoc.render_doc(mmpool_ext)
        assert LIPResNet is mmpool_ext.LIPResNet
        print(sorted(set({names!r}) & set(dir(mmpool_ext))))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            print(hasattr(mmpool_ext, {names[0]!r}))
        print(str(caught[0].message))
    """)
    printed = run(code)
    assert printed.splitlines()[:2] == ['[]', 'False']
    assert f'{names[0]}: {missing} must be importable, but importing it raised ModuleNotFoundError' in printed


def test_tools_run_by_name_from_any_folder(tmp_path):
    def call(*arguments):
        return subprocess.run([sys.executable, '-m', 'mmpool_ext', *arguments], cwd=tmp_path, capture_output=True, text=True)

    listed = call('--help').stdout
    for name in ('fit_dupsampling', 'visualize_lip', 'convert_lip_checkpoint', 'check_config', 'upstream'):
        assert f'  {name} ' in listed
    assert 'usage: make_shapes.py' in call('make_shapes', '--help').stdout
    unknown = call('fit_dupsample')
    assert unknown.returncode == 1
    assert "tool must be one that `python -m mmpool_ext --help` lists, but got 'fit_dupsample'; close to it: fit_dupsampling" in unknown.stderr
