import subprocess
import sys
import textwrap

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
    printed = run("import runpy; runpy.run_module('mmpool_ext', run_name='__main__')")
    assert 'MODELS.LIPResNet -> mmpool_ext.backbones.lip_resnet.LIPResNet' in printed
    assert 'compiled ops' in printed
    assert '/configs' in printed
    for package in ('torch ', 'mmengine ', 'mmdet ', 'timm '):
        assert package in printed
