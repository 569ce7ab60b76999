"""A wheel holds all that an experiment needs: built, installed aside and used in a folder that holds nothing of the clone."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

pytest.importorskip('mmengine')
from mmengine.config import Config
from upstream import script_path

ROOT = Path(__file__).parents[1]
SOURCES = ('mmpool_ext', 'configs', 'csrc', 'tools', 'setup.py', 'pyproject.toml', 'MANIFEST.in', 'model-index.yml', 'README.md', 'LICENSE')
CHECK = """
import sys
from mmengine.config import Config
print(Config.fromfile(sys.argv[1]).model.backbone.type)
import mmpool_ext
print(Config.fromfile(sys.argv[2]).model.backbone.type)
"""
HELP_OF_ALL = """
from mmpool_ext.__main__ import run_tool, tools
for name in tools():
    try:
        run_tool(name, ['--help'])
    except SystemExit as done:
        assert not done.code, (name, done.code)
"""
# Without site there is no setuptools' .pth file either, which gives Python 3.12 the distutils that mmengine imports.
SCRIPT = """
import runpy, sys
import _distutils_hack
_distutils_hack.add_shim()
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def run(folder, installed, *arguments, **environment):
    """Run Python in ``folder`` with the installed wheel and the environment's packages, but without its editable installs (-S): return the print."""
    paths = os.pathsep.join([str(installed), sysconfig.get_path('purelib')])
    environment = dict(os.environ, PYTHONPATH=paths, OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore', **environment)
    arguments = ['-S', *arguments]
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    return done.stdout


def copy_sources(folder):
    """Copy what an sdist is made of, without what was built from it."""
    source = folder / 'source'
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns('*.so', '__pycache__'))
        else:
            shutil.copy(ROOT / name, source)
    return source


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """A wheel built from a copy of the sources, without the compiled ops: the switch leaves out mmpool_ext._C and what compiles it, no file else."""
    folder = tmp_path_factory.mktemp('build')
    source = copy_sources(folder)
    run(source, folder, '-m', 'pip', 'wheel', '-q', '--no-build-isolation', '--no-deps', '-w', folder, '.', MMPOOL_EXT_WITH_OPS='0')
    return next(folder.glob('*.whl'))


@pytest.fixture(scope='module')
def installed(wheel):
    folder = wheel.parent / 'installed'
    run(wheel.parent, wheel.parent, '-m', 'pip', 'install', '-q', '--no-deps', '--target', folder, wheel)
    return folder


def test_wheel_holds_configs_and_tools(wheel):
    """Under mmpool_ext/.mim, where mmengine and mim look: see mmdet's own wheel."""
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {f'mmpool_ext/.mim/{path.relative_to(ROOT)}' for path in (ROOT / 'configs').rglob('*.*') if '__pycache__' not in path.parts}
    assert len(configs) > 150
    assert configs - names == set()
    assert {'mmpool_ext/.mim/tools/upstream.py', 'mmpool_ext/.mim/tools/analysis_tools/get_flops.py', 'mmpool_ext/.mim/model-index.yml'} <= names
    assert 'mmpool_ext/py.typed' in names
    assert 'mmpool_ext/.mim/tools/demo/make_shapes.py' in names  # configs/shapes/ needs its data
    assert not [name for name in names if '/demo' in name.replace('/demo/', '/') or 'build_cuda' in name or '__pycache__' in name]


def test_index_lists_every_metafile_and_they_list_configs():
    listed = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
    assert set(listed) == {str(path.relative_to(ROOT)) for path in (ROOT / 'configs').glob('*/metafile.yml')}
    for metafile in listed:
        for model in yaml.safe_load((ROOT / metafile).read_text())['Models']:
            assert (ROOT / model['Config']).is_file()
            assert Path(model['Config']).stem == model['Name']


def test_configs_are_found_by_the_packages_name(installed, tmp_path):
    """From the installed wheel, as a base in mmengine's spelling: at once after ``import mmpool_ext``, and where mmdet's script reads it first."""
    pytest.importorskip('mmdet')
    shipped = "'mmpool_ext::lip/faster-rcnn_lip-r50_fpn_2x_coco.py'"
    (tmp_path / 'first.py').write_text(f"_base_ = __import__('mmpool_ext') and {shipped}\n")
    (tmp_path / 'second.py').write_text(f'_base_ = {shipped}\n')
    assert run(tmp_path, installed, '-c', CHECK, 'first.py', 'second.py').split() == ['LIPResNet'] * 2
    report = run(tmp_path, installed, '-m', 'mmpool_ext')
    for shipped in ('configs', 'tools'):
        assert f'{installed / "mmpool_ext" / ".mim" / shipped}\n' in report
        assert not (installed / 'mmpool_ext' / '.mim' / shipped).is_symlink()
    assert 'compiled ops not built' in report


def test_tools_of_the_wheel_run(installed, tmp_path):
    """All that it lists: what needs the repository is left out."""
    for codebase in ('mmdet', 'mmseg', 'mmpretrain'):
        pytest.importorskip(codebase)
    listed = set(re.findall(r'^  (\w+)', run(tmp_path, installed, '-m', 'mmpool_ext', '--help'), re.MULTILINE))
    assert {'get_flops', 'fit_dupsampling', 'check_config', 'make_shapes'} <= listed
    assert not {'study', 'write_study', 'ops_matrix', 'build_cuda'} & listed
    assert set(re.findall(r'usage: (\w+)', run(tmp_path, installed, '-c', HELP_OF_ALL))) == listed


def test_configs_are_found_in_an_editable_install(tmp_path):
    """Whose distribution has no files where mmengine looks for them."""
    pytest.importorskip('mmdet')
    import mmpool_ext  # noqa: F401

    (tmp_path / 'config.py').write_text("_base_ = 'mmpool_ext::lip/retinanet_lip-r50_fpn_2x_coco.py'\n")
    assert Config.fromfile(tmp_path / 'config.py').model.backbone.type == 'LIPResNet'


# Distributions of the forks have other names than mmengine knows.
FORKS = """
import importlib.metadata as metadata
real = metadata.distribution
def renamed(name):
    if name == 'mmsegmentation':
        raise metadata.PackageNotFoundError(name)
    return real(name)
metadata.distribution = renamed
import mmpool_ext
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
print(MODULE2PACKAGE['mmseg'], Config.fromfile('config.py').model.type)
"""


def test_configs_of_mmseg_are_found_under_the_forks_names(tmp_path):
    pytest.importorskip('mmseg')
    (tmp_path / 'config.py').write_text("_base_ = 'mmseg::_base_/models/fcn_r50-d8.py'\n")
    assert run(tmp_path, os.pathsep.join(sys.path), '-c', FORKS).split() == ['mmseg', 'EncoderDecoder']


def one_step(package, folder):
    """Make data in ``folder``; give the arguments of mmdet's script that train the small detector's shipped config for one iteration."""
    make_shapes = pytest.importorskip('make_shapes')
    make_shapes.make_shapes(folder / 'data' / 'shapes', num_train=2, num_val=1, size=64)
    config = package / '.mim' / 'configs' / 'shapes' / 'faster-rcnn_lip-r14_fpn_1xb8-400i_shapes-160x160.py'
    loader = [f'train_dataloader.{key}' for key in ('num_workers=0', 'persistent_workers=False', 'batch_size=2')]
    options = [*loader, 'train_dataloader.dataset.pipeline.2.scale=(64,64)', 'train_cfg.max_iters=1', 'default_hooks.logger.interval=1']
    return script_path('mmdet', 'train'), config, '--cfg-options', *options, 'default_hooks.checkpoint.save_last=False'


def test_installed_config_trains_a_step_by_mmdets_own_script(installed, tmp_path):
    pytest.importorskip('mmdet')
    said = run(tmp_path, installed, '-c', SCRIPT, *one_step(installed / 'mmpool_ext', tmp_path))
    assert 'Iter(train) [1/1]' in said


@pytest.mark.slow
def test_sdist_and_its_wheel_train_a_step_in_a_new_environment(tmp_path):
    """pip builds the wheel from the sdist, compiled ops included; it is installed where no compiler is found."""
    pytest.importorskip('mmdet')
    source = copy_sources(tmp_path)
    run(source, source, 'setup.py', '-q', 'sdist', '-d', tmp_path)
    shutil.rmtree(source)
    sdist = next(tmp_path.glob('*.tar.gz'))
    run(tmp_path, tmp_path, '-m', 'pip', 'wheel', '-q', '--no-build-isolation', '--no-deps', '-w', tmp_path, sdist, FORCE_CUDA='0')
    environment = tmp_path / 'environment'
    venv.create(environment, with_pip=True)
    packages = next(environment.glob('lib/python*/site-packages'))
    # Torch and OpenMMLab are this environment's; its .pth files, by which an editable install is found, are not read.
    (packages / 'shared.pth').write_text(sysconfig.get_path('purelib') + '\nimport _distutils_hack; _distutils_hack.add_shim()\n')

    def inside(*arguments):
        variables = dict(PATH='', HOME=str(tmp_path), OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore', MPLCONFIGDIR=str(tmp_path))
        command = [environment / 'bin' / 'python', *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0, done.stdout
        return done.stdout

    inside('-m', 'pip', 'install', '-q', '--no-deps', '--no-index', '--ignore-installed', next(tmp_path.glob('*.whl')))
    report = inside('-m', 'mmpool_ext')
    assert str(packages / 'mmpool_ext') in report
    assert 'not built' not in report
    assert 'BROKEN' not in report
    assert 'Iter(train) [1/1]' in inside(*one_step(packages / 'mmpool_ext', tmp_path))
