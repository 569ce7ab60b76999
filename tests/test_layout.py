"""The imports run one way: ops <- layers <- backbones | decode_heads; a codebase is imported only by what is registered as needing it."""

import ast
import inspect
import re
import sys
from pathlib import Path

import pytest

import mmpool_ext

ROOT = Path(mmpool_ext.__file__).parent
MAY_IMPORT = {
    'ops': ({'torch'}, set()),
    'layers': ({'torch', 'mmengine', 'mmcv', 'numpy'}, {'ops'}),
    'backbones': ({'torch', 'mmengine', 'mmcv'}, {'ops', 'layers'}),
    'decode_heads': ({'torch', 'mmengine', 'mmcv', 'mmseg', 'numpy'}, {'ops', 'layers', 'backbones'}),
}
NEEDS = {module: codebase for _, module, codebase in mmpool_ext.lazy.LAZY.values()}


def imports(path):
    """Top-level imports of a file, as (package, sub-package of mmpool_ext or None); imports inside functions are lazy on purpose."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from ((alias.name.split('.')[0], None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            package, *rest = node.module.split('.')
            yield package, rest[0] if package == 'mmpool_ext' and rest else None
        elif isinstance(node, ast.ImportFrom):
            parents = path.relative_to(ROOT).parts[:-1]
            target = [*parents[: len(parents) - node.level + 1], *(node.module or '').split('.')]
            yield 'mmpool_ext', target[0]


@pytest.mark.parametrize('sub_package', MAY_IMPORT)
def test_imports_run_one_way(sub_package):
    packages, siblings = MAY_IMPORT[sub_package]
    files = list((ROOT / sub_package).rglob('*.py'))
    assert len(files) > 1
    for path in files:
        for package, sibling in imports(path):
            if package == 'mmpool_ext':
                assert sibling in {*siblings, sub_package}, f'{path.name} imports mmpool_ext.{sibling}'
            else:
                need = NEEDS.get(f'{sub_package}.{path.stem}')
                assert package in {*packages, need} | sys.stdlib_module_names, f'{path.name} imports {package}'


def test_only_one_file_imports_the_extension():
    importers = [path.name for path in ROOT.rglob('*.py') if 'mmpool_ext._C' in path.read_text()]
    assert importers == ['_extension.py']


def test_papers_are_named_not_numbered():
    """ "000 Table 2" tells a reader nothing."""
    numbered = re.compile(r'(?<![\d.,_])00[0-3],? (?=[A-Z]|\d\.\d)')
    files = [path for folder in ('configs', 'mmpool_ext', 'tests', 'tools', 'csrc') for path in (ROOT.parent / folder).rglob('*.*')]
    texts = [path for path in files if path.suffix in {'.py', '.md', '.yml', '.h', '.cpp', '.cu'} and path != Path(__file__)]
    assert len(texts) > 300
    assert [str(path) for path in texts if numbered.search(path.read_text())] == []


def test_dilation_and_ceil_mode_are_keywords():
    """The sixth positional argument was the one in LIP and the other in P-pooling: a config or a call with either must name it."""
    import mmpool_ext.layers
    import mmpool_ext.ops

    found = [getattr(mmpool_ext.ops, name) for name in mmpool_ext.ops.__all__ if name.endswith('pool2d')]
    found += [getattr(mmpool_ext.layers, name) for name in mmpool_ext.layers.__all__ if name.endswith('Pool2d')]
    assert len(found) > 12
    for callable_ in found:
        parameters = inspect.signature(callable_).parameters
        for name in {'dilation', 'ceil_mode', 'backend'} & parameters.keys():
            assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY, (callable_, name)
