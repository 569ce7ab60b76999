"""What README and the pages tell a user to write builds, and what they tell him to run is there."""

import re
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

import mmpool_ext.__main__

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *(ROOT / 'docs').rglob('*.md'), *(ROOT / 'configs').glob('*/README.md')]
CONFIGS = {
    f'{path.relative_to(ROOT)}:{path.read_text()[: match.start()].count(chr(10)) + 1}': match[1]
    for path in PAGES
    for match in re.finditer(r'^```python\n(_base_ = .*?)```', path.read_text(), re.DOTALL | re.MULTILINE)
}


def test_there_are_configs_to_build():
    assert len(CONFIGS) >= 10


@pytest.mark.parametrize('where', CONFIGS)
def test_config_builds(where, tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(CONFIGS[where])
    cfg = Config.fromfile(path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    assert type(model.backbone).__module__.split('.')[0] in ('mmpool_ext', 'mmdet', 'mmseg', 'mmpretrain')
    names = {name for name, _ in model.named_parameters()}
    used = re.findall(r"'(side_branch|temperature)': dict\(", CONFIGS[where])
    assert all(any(key in name for name in names) for key in used)
    for hook in cfg.get('custom_hooks', []):
        if hook['type'] in mmpool_ext.lazy.LAZY:
            mmpool_ext.lazy.load(hook['type'])


def test_the_delta_for_mmseg_takes_the_checkpoint_of_its_base(tmp_path):
    from mmseg.models.backbones import ResNetV1c

    delta = next(text for where, text in CONFIGS.items() if where.startswith('README.md') and 'deep_stem' in text)
    (tmp_path / 'config.py').write_text(delta)
    cfg = Config.fromfile(tmp_path / 'config.py')
    assert cfg.model.pretrained == 'open-mmlab://resnet50_v1c'
    original = ResNetV1c(depth=50).state_dict()
    torch.save(original, tmp_path / 'resnet50_v1c.pth')
    cfg.model.pretrained = str(tmp_path / 'resnet50_v1c.pth')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        backbone = MODELS.build(cfg.model).backbone
    backbone.init_weights()
    own = backbone.state_dict()
    taken = {name for name, tensor in own.items() if name in original and torch.equal(tensor, original[name])}
    assert {'stem.0.weight', 'stem.6.weight', 'layer1.0.conv2.weight', 'layer4.2.conv3.weight'} <= taken
    assert all('logit' in name or 'pool' in name or name.endswith('conv2.weight') for name in own.keys() - taken)


def test_lip_is_what_readme_says():
    code = re.search(r'^```python\n(weight = .*?)```', (ROOT / 'README.md').read_text(), re.DOTALL | re.MULTILINE)[1]
    names = dict(F=torch.nn.functional, input=torch.randn(2, 3, 9, 12), logit=3 * torch.randn(2, 3, 9, 12))
    exec(code, names)
    torch.testing.assert_close(mmpool_ext.ops.lip_pool2d(names['input'], names['logit']), names['output'])


@pytest.mark.parametrize('path', [*PAGES, ROOT / 'csrc' / 'README.md', ROOT / 'CHANGELOG.md'], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    """`make docs` checks the anchors too."""
    text = re.sub(r'^```.*?^```', '', path.read_text(), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r'\]\((?!\w+:|#)([^)\s#]+)', text):
        assert (path.parent / link).exists(), link


def test_figures_of_the_decision_table_stand_in_the_tables():
    known = set(re.findall(r'\d+\.\d+', ''.join(path.read_text() for path in (ROOT / 'configs').rglob('README.md'))))
    figures = re.findall(r'\d+\.\d+', ''.join(re.findall(r'^\|.*$', (ROOT / 'docs/choose.md').read_text(), re.M)))
    assert len(figures) > 30
    assert set(figures) - known == set()


def test_every_method_page_changes_the_network():
    from_methods = ''.join(text for where, text in CONFIGS.items() if where.startswith('docs/methods/'))
    for name in ('LIPResNet', 'PolynomialPool2d', 'DUpsamplingHead', 'PyramidRepresentationHead'):
        assert name in from_methods


@pytest.mark.parametrize('path', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_tools_that_a_page_names_are_there(path):
    text = path.read_text()
    tools = mmpool_ext.__main__.tools()
    for name in re.findall(r'python -m mmpool_ext (\w+)', text):
        assert name in tools or name == 'TOOL', name
    for name in re.findall(r'(?<![\w/])tools/\w+(?:/\w+)*\.py', text):
        assert (ROOT / name).is_file() or name in ('tools/train.py', 'tools/test.py'), name
