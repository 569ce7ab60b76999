"""Write configs/README.md: every table row of the four papers with its config, the paper's figures, what can be counted and what was measured.

    python tools/list_configs.py            # from configs/*/tables.yml and configs/costs.json
    python tools/list_configs.py --count    # first count the networks that costs.json lacks; interrupt it as you like, it goes on from there

A row of tables.yml has a name, a config (the file's name without .py, if there is one), the paper's figures in the order of the table's columns
and, once somebody has trained it, ``measured`` in the same order with its ``source``. Columns named ``parameters`` (M), ``lip`` and ``dupsampling``
(G) are costs that tools/get_flops.py counts as the paper does. Configs that no row names are listed below their paper's tables. Remove a line of
costs.json to count that network again.
"""

import argparse
import json
from pathlib import Path

import yaml
from rich.progress import track

CONFIGS = Path(__file__).parents[1] / 'configs'
COUNTED_AS = {'lip': 'FLOPs (G)', 'dupsampling': 'decoder FLOPS (G)'}
HEADINGS = {'parameters': 'parameters (M)', **COUNTED_AS}
COUNTS = {'parameters': ('parameters (M)', 1e6), 'multiply_adds': ('multiply-adds (G)', 1e9), 'pooling': ('pooling (G)', 1e9)}
INTRODUCTION = """\
# Every table of the four papers

<!-- Written by tools/list_configs.py from */tables.yml and costs.json: edit those. -->

What a number says is in its column's name. **paper**: printed in the paper, in the table that the heading names. **counted**: by `tools/get_flops.py`
on the network of the config, without training, for one image of the size given; multiply-adds by mmengine's rules, poolings apart (k * k an output;
nothing for DPP, which is plain PyTorch arithmetic), and again as the paper counts where it gives a cost. **measured**: by whoever trained the config,
with its source; empty where nobody has.
"""


def check(ok, where, rule, value):
    """Raise for data that break a rule."""
    if not ok:
        raise ValueError(f'list_configs: {where} must {rule}, but got {value!r}')


def read_papers(configs: Path) -> list[tuple[Path, dict]]:
    """Read every ``tables.yml``.

    Returns:
        For each paper its folder and the file's content, all figures as they are written: 76.40 keeps its zero.

    Raises:
        ValueError: If a row's figures do not go with the table's columns, a measurement has no source, or a config is not there.
    """
    papers = []
    for path in sorted(configs.glob('*/tables.yml')):
        paper = yaml.load(path.read_text(), Loader=yaml.BaseLoader)
        for table in paper['tables']:
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
    write(CONFIGS / 'README.md', render(CONFIGS))
    print(CONFIGS / 'README.md')


if __name__ == '__main__':
    main()
