"""What a paper's recipes.yml says of a config, against the config as mmengine resolves it."""

import ast
import functools
import re
from pathlib import Path

import write_tables
from mmengine.config import Config

CONFIGS = Path(__file__).parents[1] / 'configs'
# What the runner reads. Other top-level names are variables that these were made from.
READ = re.compile(
    r'(model|data_preprocessor|(train|val|test)_dataloader|(train|val|test)_cfg|optim_wrapper|param_scheduler|(val|test)_evaluator'
    r'|auto_scale_lr|custom_hooks|default_hooks\.checkpoint|tta_model|tta_pipeline|randomness)\b'
)
# How fast it is and where it runs, not what is trained.
IGNORED = re.compile(r'.*\.(num_workers|persistent_workers|pin_memory|backend_args|_scope_)(\..*)?$')
MISSING = object()


def flatten(value, path=''):
    """Every leaf of nested dicts and lists under its dotted path; an empty one is a leaf."""
    if isinstance(value, dict | list | tuple) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: leaf for name, entry in items for key, leaf in flatten(entry, f'{path}.{name}' if path else str(name)).items()}
    return {path: list(value) if isinstance(value, tuple) else value}


def leaves(config):
    found = flatten(config.to_dict())
    return {path: value for path, value in found.items() if READ.match(path) and not IGNORED.match(path)}


@functools.cache
def baseline_leaves(name):
    return leaves(Config.fromstring(f'_base_ = {name!r}', '.py'))


@functools.cache
def compiled(pattern):
    """``*``: anything within a name; ``**``: across names too; ``{a,b}``: one of them. Matches whole paths and what lies below them."""
    parts = re.split(r'(\*\*|\*|\{[^}]*\})', pattern)
    rules = {'**': '.*', '*': '[^.]*'}
    regex = ''.join(
        rules.get(part) or (f'({"|".join(map(re.escape, part[1:-1].split(",")))})' if part.startswith('{') else re.escape(part)) for part in parts
    )
    return re.compile(f'(?P<top>{regex})(\\.(?P<below>.*))?$')


def matched(found, pattern):
    """The config's values under each path that the pattern names: ``{path: {path below it: leaf}}``."""
    tops = {}
    for path, value in found.items():
        if match := compiled(pattern).match(path):
            tops.setdefault(match['top'], {})[match['below'] or ''] = value
    return tops


def problems(path, groups):
    """What is wrong with a config: rows that it breaks, and leaves that neither a row nor a baseline covers."""
    found = leaves(Config.fromfile(path))
    covered, wrong = set(), []
    for group in groups:
        if not any(path.match(pattern) for pattern in group['configs']):
            continue
        baselines = group.get('baseline', [])
        for name in [baselines] if isinstance(baselines, str) else baselines:
            expected = baseline_leaves(name)
            covered |= {key for key, value in found.items() if expected.get(key, MISSING) == value and type(expected[key]) is type(value)}
        for row in group['recipe']:
            for pattern, expected in row.get('config', {}).items():
                tops = matched(found, pattern)
                if not tops:
                    wrong.append(f'{group["group"]}, {row["quantity"]}: no {pattern}')
                for top, values in tops.items():
                    covered |= {f'{top}.{below}' if below else top for below in values}
                    if values != flatten(expected):
                        wrong.append(f'{group["group"]}, {row["quantity"]}: {top} is {values}, not {flatten(expected)}')
            for pattern, choices in row.get('differs', {}).items():
                for top, values in matched(found, pattern).items():
                    covered |= {f'{top}.{below}' if below else top for below in values}
                    if values not in [flatten(choice) for choice in choices]:
                        wrong.append(f'{group["group"]}, {row["quantity"]}: {top} is {values}, none of {choices}')
    return wrong + [f'in no row and no baseline: {key} = {value!r}' for key, value in found.items() if key not in covered]


def numbers(path):
    """Every number of a config file: line, first and last column, value."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant) and type(node.value) in (int, float)]
    return [(node.lineno, node.col_offset, node.end_col_offset, node.value) for node in nodes]


def planted(path, position):
    """The file's text with one number changed."""
    line, first, last, value = position
    lines = path.read_text().splitlines(keepends=True)
    lines[line - 1] = f'{lines[line - 1][:first]}{value * 2 + 1}{lines[line - 1][last:]}'
    return ''.join(lines)


def inherits(config, base):
    """Whether a config has the base file among the local files that it is made from."""
    assigned = {node.targets[0].id: node.value for node in ast.parse(config.read_text()).body if isinstance(node, ast.Assign)}
    names = ast.literal_eval(assigned['_base_']) if '_base_' in assigned else []
    paths = [config.parent / name for name in ([names] if isinstance(names, str) else names) if '::' not in name]
    return any(path.resolve() == base.resolve() or inherits(path, base) for path in paths)


def read(paper):
    return write_tables.read_recipes(CONFIGS / paper)
