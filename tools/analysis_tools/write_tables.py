"""Write the tables of the configs' READMEs, and their metafiles.

    python tools/analysis_tools/write_tables.py            # from configs/*/tables.yml, recipes.yml, and configs/data.yml and costs.json
    python tools/analysis_tools/write_tables.py --count    # first count the networks that costs.json lacks; an interrupted run is resumed

configs/README.md has every table row of the four papers with its config, the paper's figures, what can be counted and what was measured.
The README of a paper has, between markers, its training recipes, every number with its source (see recipes.yml's own head), and how to prepare its
data. metafile.yml has the paper's figures for model-index: those of the tables with a ``dataset`` (and ``metrics``, if they are not the columns).

A row of tables.yml has a name, a config (the file's name without .py, if there is one), the paper's figures in the order of the table's columns
and, once somebody has trained it, ``measured`` in the same order with its ``source``. Columns named ``parameters`` (M), ``lip`` and ``dupsampling``
(G) are costs that tools/analysis_tools/get_flops.py counts as the paper does. Configs that no row names are listed below their paper's tables.
Remove a line of costs.json to count that network again.
"""

import argparse
import json
import re
from pathlib import Path

import yaml
from rich.progress import track

CONFIGS = Path(__file__).parents[2] / 'configs'
COUNTED_AS = {'lip': 'FLOPs (G)', 'dupsampling': 'decoder FLOPS (G)'}
HEADINGS = {'parameters': 'parameters (M)', **COUNTED_AS}
COSTS = {'parameters': ('Parameters', 'M'), 'lip': ('FLOPs', 'G'), 'dupsampling': ('Decoder FLOPs', 'G')}
METRICS = {'top-1': 'Top 1 Accuracy', 'top-5': 'Top 5 Accuracy', 'AP': 'box AP', 'pixel accuracy': 'aAcc'}
COUNTS = {'parameters': ('parameters (M)', 1e6), 'multiply_adds': ('multiply-adds (G)', 1e9), 'pooling': ('pooling (G)', 1e9)}
BEGIN = '<!-- Written by tools/analysis_tools/write_tables.py from recipes.yml: edit that. -->'
END = '<!-- End of the recipes. -->'
DATA_BEGIN = '<!-- Written by tools/analysis_tools/write_tables.py from configs/data.yml: edit that. -->'
DATA_END = '<!-- End of the data. -->'
INTRODUCTION = """\
# Every table of the four papers

<!-- Written by tools/analysis_tools/write_tables.py from */tables.yml and costs.json: edit those. -->

A column's name says where its figures come from. **paper**: printed in the paper, in the table that the heading names. **counted**: by
`tools/analysis_tools/get_flops.py` on the network of the config, without training, for one image of the size given; multiply-adds by mmengine's
rules, poolings apart (k * k an output; nothing for DPP, which is plain PyTorch arithmetic), and again as the paper counts where it gives a cost.
**measured**: by whoever trained the config, with its source; empty where nobody has.
"""


def check(ok, where, rule, value):
    """Raise for data that break a rule."""
    if not ok:
        raise ValueError(f'write_tables: {where} must {rule}, but got {value!r}')


def read_papers(configs: Path) -> list[tuple[Path, dict]]:
    """Read every ``tables.yml``.

    Returns:
        For each paper its folder and the file's content, all figures as they are written: 76.40 keeps its zero.

    Raises:
        ValueError: If a table has an unknown key, a row's figures do not go with its columns, a measurement has no source, or a config is not
            there.
    """
    papers = []
    for path in sorted(configs.glob('*/tables.yml')):
        paper = yaml.load(path.read_text(), Loader=yaml.BaseLoader)
        for table in paper['tables']:
            where = f'{path.parent.name}, {table["title"]}'
            unknown = set(table) - {'title', 'columns', 'rows', 'note', 'task', 'dataset', 'metrics'}
            check(not unknown, where, 'have no other keys than title, columns, rows, note, task, dataset and metrics', sorted(unknown))
            for row in table['rows']:
                where = f'{path.parent.name}, {table["title"]}, {row["row"]}'
                unknown = set(row) - {'row', 'config', 'upstream', 'paper', 'measured', 'source', 'shape'}
                check(not unknown, where, 'have no other keys than row, config, upstream, paper, measured, source and shape', sorted(unknown))
                for key in ('paper', 'measured'):
                    figures = row.get(key, table['columns'])
                    check(len(figures) == len(table['columns']), f'{where}: {key}', f'have one entry for each of {table["columns"]}', figures)
                check(('measured' in row) == ('source' in row), where, 'have a source if and only if it was measured', row)
                config = row.get('config')
                check(not config or (path.parent / f'{config}.py').is_file(), f'{where}: config', f'be a file in {path.parent.name}/', config)
        papers.append((path.parent, paper))
    return papers


def listed_configs(papers) -> dict[str, tuple[int, int] | None]:
    """All experiments of the papers, ``folder/name``, with the image size that their rows ask for, or None."""
    shapes = {f'{folder.name}/{path.stem}': None for folder, _ in papers for path in sorted(folder.glob('*.py'))}
    for folder, paper in papers:
        for table in paper['tables']:
            shapes |= {f'{folder.name}/{row["config"]}': tuple(map(int, row['shape'])) for row in table['rows'] if 'shape' in row}
    return shapes


def write(path: Path, text: str):
    """Write a file in one step."""
    unfinished = path.with_name(f'.{path.name}')
    unfinished.write_text(text)
    unfinished.replace(path)


def count(configs: Path):
    """Count the networks that ``costs.json`` lacks, one line each, and drop those whose config has gone."""
    import get_flops

    path = configs / 'costs.json'
    shapes = listed_configs(read_papers(configs))
    known = json.loads(path.read_text()) if path.exists() else {}
    known = {name: counted for name, counted in known.items() if name in shapes}

    def save():
        lines = ',\n'.join(f'{json.dumps(name)}: {json.dumps(known[name])}' for name in sorted(known))
        write(path, f'{{\n{lines}\n}}\n')

    save()
    for name in track([name for name in shapes if name not in known], 'count'):
        known[name] = get_flops.costs(configs / f'{name}.py', shapes[name])
        save()


def number(value: float) -> str:
    """Four significant digits, none of them an exponent."""
    return f'{value:.0f}' if value >= 1000 else f'{value:.4g}' if value >= 1e-3 else '0'


def count_cells(counted: dict, counted_as: str | None = None) -> list[str]:
    """Cells of a network's costs; empty ones for a network without a config, or that was not counted."""
    if not counted:
        return [''] * (1 + len(COUNTS) + bool(counted_as))
    cells = [number(counted[key] / unit) for key, (_, unit) in COUNTS.items()]
    own = [f'{counted[counted_as] / 1e9:.2f}'] if counted_as else []
    return ['{} x {}'.format(*counted['shape']), *cells, *own]


def count_headings(counted_as: str | None = None) -> list[str]:
    """Headings of :func:`count_cells`."""
    own = [f'counted: {COUNTED_AS[counted_as]} as the paper'] if counted_as else []
    return ['counted at', *(f'counted: {heading}' for heading, _ in COUNTS.values()), *own]


def read_recipes(folder: Path) -> list[dict]:
    """Read a paper's ``recipes.yml``.

    Returns:
        The groups of experiments, as they are written: keys ``group``, ``configs`` (globs), optional ``baseline`` (one upstream config or a list),
        ``recipe`` (rows of ``quantity``, ``config`` or ``differs``, optional ``shown``, and ``source``).

    Raises:
        ValueError: If a key is unknown or missing, a glob matches no config, or a config is in no group.
    """
    groups = yaml.safe_load((folder / 'recipes.yml').read_text())
    found = set()
    for group in groups:
        where = f'{folder.name}/recipes.yml, {group.get("group")}'
        keys = set(group) - {'baseline'}
        check(keys == {'group', 'configs', 'recipe'}, where, 'have the keys group, configs, recipe and perhaps baseline', sorted(group))
        for pattern in group['configs']:
            matched = {path.stem for path in folder.glob(pattern)}
            check(matched, where, 'name configs that exist', pattern)
            found |= matched
        for row in group['recipe']:
            keys = set(row) - {'shown'}
            valid = keys in ({'quantity', 'config', 'source'}, {'quantity', 'differs', 'source'})
            check(valid, where, 'have rows of quantity, config or differs, source and perhaps shown', row)
    missing = {path.stem for path in folder.glob('*.py')} - found
    check(not missing, f'{folder.name}/recipes.yml', 'have a group for every config', sorted(missing))
    return groups


def shown(row: dict) -> str:
    """The value of a recipe's row as text."""
    if 'shown' in row:
        return row['shown']
    if 'differs' in row:
        return '; '.join(f'`{key.split(".")[-1]}` {" or ".join(map(str, values))}' for key, values in row['differs'].items())
    return '; '.join(f'`{key.split(".")[-1]}` {value}' for key, value in row['config'].items())


def render_recipes(folder: Path) -> str:
    """The part of a paper's README that its ``recipes.yml`` describes."""
    parts = []
    for group in read_recipes(folder):
        baselines = group.get('baseline', [])
        names = [f'`{name}`' for name in ([baselines] if isinstance(baselines, str) else baselines)]
        rest = f' Everything else is as in {" and ".join(names)}.' if names else ''
        rows = [[row['quantity'], shown(row), row['source']] for row in group['recipe']]
        configs = ', '.join(f'`{pattern}`' for pattern in group['configs'])
        table = f'\n{markdown(["Quantity", "Value here", "Source"], rows)}' if rows else ''
        parts.append(f'### {group["group"]}\n\nConfigs: {configs}.{rest}\n{table}')
    return '\n'.join(parts)


def read_data(configs: Path) -> list[dict]:
    """Read ``data.yml``: name, papers, a pattern of the names of their configs, where to get a data set, the commands, and what is there then.

    Raises:
        ValueError: If a key is unknown or missing, or a paper has no folder.
    """
    datasets = yaml.safe_load((configs / 'data.yml').read_text())
    for dataset in datasets:
        where = f'data.yml, {dataset.get("name")}'
        keys = set(dataset) - {'note'}
        valid = keys == {'name', 'needed_by', 'configs', 'folders', 'get', 'commands'}
        check(valid, where, 'have the keys name, needed_by, configs, folders, get, commands and perhaps note', sorted(dataset))
        for paper in dataset['needed_by']:
            check((configs / paper).is_dir(), f'{where}: needed_by', 'name folders', paper)
    return datasets


def render_data(folder: Path) -> str:
    """The part of a paper's README that tells how to get and convert its data."""
    datasets = [dataset for dataset in read_data(folder.parent) if folder.name in dataset['needed_by']]
    rows = []
    for dataset in datasets:
        there = '<br>'.join(f'`{path}`' for path in dataset['folders'])
        rows.append([dataset['name'], f'`*{dataset["configs"]}*`', dataset['get'], there, dataset.get('note', '')])
    commands = '\n\n'.join('\n'.join([f'# {dataset["name"]}', *dataset['commands']]) for dataset in datasets)
    return f'{markdown(["Data set", "Configs", "Get", "What is there then", "Note"], rows)}\n```bash\n{commands}\n```\n'


def replaced(text: str, begin: str, end: str, part: str, where: str) -> str:
    """The text with what stands between two markers replaced."""
    check(text.count(begin) == text.count(end) == 1, where, 'have both markers once', [begin, end])
    return f'{text[: text.index(begin)]}{begin}\n\n{part}\n{text[text.index(end) :]}'


def render_readme(folder: Path) -> str:
    """The text of a paper's README with the recipes and data as they are now."""
    text, where = (folder / 'README.md').read_text(), f'{folder.name}/README.md'
    if (folder / 'recipes.yml').exists():
        text = replaced(text, BEGIN, END, render_recipes(folder), where)
    return replaced(text, DATA_BEGIN, DATA_END, render_data(folder), where)


def training_length(name: str) -> dict[str, int]:
    """How long a config trains, by OpenMMLab's rules for file names: ``_90k_`` is in iterations, ``_2x_`` in epochs of 12."""
    if iterations := re.search(r'[-_](\d+)k_', name):
        return {'Iterations': 1000 * int(iterations[1])}
    return {'Epochs': 24 if '_2x_' in name else 90}


def results(paper: dict, name: str) -> tuple[dict, list[dict]]:
    """What the paper's tables say of a config.

    Returns:
        Its costs, and its results: one for each data set, by the first table that has it (P-pooling's supplement rounds some figures otherwise).
    """
    costs, found = {}, {}
    for table in paper['tables']:
        columns = table['columns']
        names = table.get('metrics', [METRICS.get(column, column) for column in columns])
        for row in table['rows']:
            if row.get('config') != name or 'dataset' not in table:
                continue
            for column, metric, figure in zip(columns, names, row['paper'], strict=True):
                if not figure[:1].isdigit():  # "diverges", or nothing
                    continue
                if column in COSTS:
                    key, unit = COSTS[column]
                    costs.setdefault(f'{key} (paper)', f'{figure}{unit}')
                else:
                    metrics = found.setdefault((table['task'], table['dataset']), {})
                    metrics.setdefault(f'{metric} (paper)', float(figure))
    return costs, [{'Task': task, 'Dataset': dataset, 'Metrics': metrics} for (task, dataset), metrics in found.items()]


def render_metafile(folder: Path, paper: dict) -> str:
    """The text of a paper's ``metafile.yml``."""
    collection = paper['collection'] | {'README': f'configs/{folder.name}/README.md'}
    models = []
    for path in sorted(folder.glob('*.py')):
        costs, figures = results(paper, path.stem)
        model = {'Name': path.stem, 'In Collection': collection['Name'], 'Config': f'configs/{folder.name}/{path.name}'}
        models.append(model | {'Metadata': training_length(path.stem) | costs} | ({'Results': figures} if figures else {}))
    text = yaml.safe_dump({'Collections': [collection], 'Models': models}, sort_keys=False, width=1000)
    origin = "# Written by tools/analysis_tools/write_tables.py from tables.yml: edit that. Every figure is the paper's; nothing here was retrained."
    return f'{origin}\n{text}'


def markdown(headings: list[str], rows: list[list[str]]) -> str:
    """Lay out a table."""
    lines = [headings, ['---'] * len(headings), *rows]
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def render(configs: Path) -> str:
    """The text of ``configs/README.md``."""
    costs = json.loads((configs / 'costs.json').read_text())
    parts = [INTRODUCTION]
    papers = read_papers(configs)
    for folder, paper in papers:
        parts.append(f'\n## {paper["paper"]}\n\nHow to train: [{folder.name}/README.md]({folder.name}/README.md).\n')
        named = set()
        for table in paper['tables']:
            columns = table['columns']
            counted_as = next((column for column in columns if column in COUNTED_AS), None)
            rows = []
            for row in table['rows']:
                config = row.get('config')
                named.add(config)
                link = f'[config]({folder.name}/{config}.py)' if config else f'`{row["upstream"]}`' if 'upstream' in row else ''
                measured = ', '.join(f'{HEADINGS.get(c, c)} {value}' for c, value in zip(columns, row.get('measured', ()), strict=False) if value)
                measured += f' ({row["source"]})' if measured else ''
                rows.append([row['row'], link, *row['paper'], *count_cells(costs.get(f'{folder.name}/{config}', {}), counted_as), measured])
            headings = [f'paper: {HEADINGS.get(column, column)}' for column in columns]
            parts.append(f'\n### {table["title"]}\n\n{markdown(["", "config", *headings, *count_headings(counted_as), "measured"], rows)}')
            if 'note' in table:
                parts.append(f'\n{table["note"]}\n')
        further = [path.stem for path in sorted(folder.glob('*.py')) if path.stem not in named]
        if further:
            rows = [[f'[{name}]({folder.name}/{name}.py)', *count_cells(costs.get(f'{folder.name}/{name}', {}))] for name in further]
            parts.append(f'\n### In no table of the paper\n\n{markdown(["config", *count_headings()], rows)}')
    return ''.join(parts)


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--count', action='store_true', help='count the networks that configs/costs.json lacks: some seconds each')
    args = parser.parse_args()
    if args.count:
        count(CONFIGS)
    texts = {CONFIGS / 'README.md': render(CONFIGS)}
    for folder, paper in read_papers(CONFIGS):
        texts |= {folder / 'README.md': render_readme(folder), folder / 'metafile.yml': render_metafile(folder, paper)}
    for path, text in texts.items():
        write(path, text)
        print(path)


if __name__ == '__main__':
    main()
