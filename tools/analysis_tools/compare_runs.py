"""Compare evaluated runs class by class: a table, and a bar chart of what each side gains over the first (P-pooling paper, Fig. 5, Tables 2 and 3).

    python tools/analysis_tools/compare_runs.py --run max logs/max-seed*.log --run P-pooling logs/ppool-seed*.log --out work_dirs/max-against-ppool
    python tools/analysis_tools/compare_runs.py --paper table3/FCN/without --paper table3/FCN/P-pooling --out work_dirs/paper

A side is one run or several seeds of it: logs of mmseg's test or train scripts (the last table of per-class results counts), mmdet's JSON with
classwise=True, or a JSON file {class: value}. Its mean is compared, its sample standard deviation shown. --paper takes the papers' own rows, which
--list-papers prints. OUT.csv and OUT.png are written.
"""

import argparse
import csv
import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.table import Table

from mmpool_ext.files import whole_file

PAPER = Path(__file__).parents[2] / 'configs' / 'ppool' / 'per_class_iou.csv'


def paper_rows() -> dict[str, dict[str, float]]:
    """The per-class IoU that the P-pooling paper and its supplement print, in percent: ``{row: {class: value}}``."""
    with PAPER.open(newline='') as file:
        return {
            line['row']: {key: float(value) for key, value in line.items() if key not in ('row', 'split', 'mean')} for line in csv.DictReader(file)
        }


def read_run(path: Path, metric: str = 'IoU') -> dict[str, float]:
    """Read the result of one run for each class.

    Args:
        path: Log of mmseg, or JSON.
        metric: Column of mmseg's table of per-class results.

    Returns:
        ``{class: value}``, in percent.

    Raises:
        ValueError: If the file holds no result for each class.
    """
    text = path.read_text()
    if path.suffix == '.json':
        values = json.loads(text)
        classwise = {re.sub(r'^.*/|_precision$', '', key): 100 * value for key, value in values.items() if key.endswith('_precision')}
        return classwise or {key: float(value) for key, value in values.items()}
    tables = text.split('per class results:')
    lines = [line.split('|')[1:-1] for line in tables[-1].splitlines() if line.startswith('|')] if len(tables) > 1 else []
    cells = [[cell.strip() for cell in line] for line in lines]
    if not cells or metric not in cells[0]:
        known = f'the columns {", ".join(cells[0][1:])}' if cells else 'no such table'
        raise ValueError(f'compare_runs: a log must hold a table of per class results with the column {metric}, but got {known} in {path}')
    column = cells[0].index(metric)
    return {line[0]: float(line[column]) for line in cells[1:]}


def compare(sides: dict[str, list[dict[str, float]]]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Average each side over its seeds.

    Args:
        sides: For each side the results of its runs, ``{class: value}``.

    Returns:
        The classes and 'mean', then means and sample standard deviations ``(sides, classes + 1)``; the deviation of a single run is NaN. As mmseg's,
        the mean of a run is one over the classes that have a value.

    Raises:
        ValueError: If two runs do not have the same classes.
    """
    (first_name, first), *_ = sides.items()
    classes = list(first[0])
    means, deviations = [], []
    for name, runs in sides.items():
        for run in runs:
            if set(run) != set(classes):
                odd = ', '.join(sorted(set(run) ^ set(classes)))
                raise ValueError(f'compare_runs: all runs must have the same classes, but got {odd} in only one of {first_name} and {name}')
        values = np.array([[run[key] for key in classes] for run in runs])
        values = np.column_stack([values, np.nanmean(values, 1)])
        means.append(values.mean(0))
        deviations.append(values.std(0, ddof=1) if len(runs) > 1 else np.full(values.shape[1], np.nan))
    return [*classes, 'mean'], np.array(means), np.array(deviations)


def print_table(names, classes, means, deviations):
    """Print values, and in brackets what each side gains over the first."""
    table = Table('class', *names)
    for index, key in enumerate(classes):
        cells = []
        for side in range(len(names)):
            spread = '' if np.isnan(deviations[side, index]) else f' ± {deviations[side, index]:.2f}'
            gain = f' ({means[side, index] - means[0, index]:+.2f})' if side else ''
            cells.append(f'{means[side, index]:.2f}{spread}{gain}')
        table.add_row(key, *cells, style='bold' if key == 'mean' else None)
    Console().print(table)


def write_csv(path, names, classes, means, deviations):
    """Write one line a class: mean and deviation of every side."""
    with path.open('w', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(['class', *(f'{name} {what}' for name in names for what in ('mean', 'std'))])
        for index, key in enumerate(classes):
            pairs = zip(means[:, index], deviations[:, index], strict=True)
            writer.writerow([key, *(('' if np.isnan(value) else f'{value:.4f}') for pair in pairs for value in pair)])


def draw(path, names, classes, means, deviations, top):
    """Draw the gains over the first side, the largest of the second side first; whiskers are the deviation of the difference."""
    gains = means[1:] - means[0]
    spreads = np.sqrt(deviations[1:] ** 2 + deviations[0] ** 2)
    order = [*np.argsort(-gains[0, :-1])[:top], len(classes) - 1]
    figure, axes = plt.subplots(figsize=(2 + 0.45 * len(order) * max(1, len(gains) / 2), 4), layout='constrained')
    width = 0.8 / len(gains)
    for side, (gain, spread) in enumerate(zip(gains, spreads, strict=True)):
        places = np.arange(len(order)) + (side - (len(gains) - 1) / 2) * width
        whiskers = None if np.isnan(spread).all() else spread[order]
        bars = axes.bar(places, gain[order], width, yerr=whiskers, capsize=2, label=names[side + 1])
        bars[-1].set_edgecolor('black')
    axes.axhline(0, color='black', linewidth=0.8)
    axes.set_xticks(np.arange(len(order)), [classes[index] for index in order], rotation=50, ha='right')
    axes.set_ylabel(f'gain over {names[0]} (points)')
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--run', nargs='+', action='append', default=[], metavar=('NAME', 'FILE'), help='a side: its name, then one file a seed')
    parser.add_argument('--paper', action='append', default=[], metavar='ROW', help='a side from the papers')
    parser.add_argument('--list-papers', action='store_true', help="print the names of the papers' rows")
    parser.add_argument('--metric', default='IoU', help="column of mmseg's table (default: %(default)s)")
    parser.add_argument('--top', type=int, default=20, help='classes in the chart, largest gain first (default: %(default)s)')
    parser.add_argument('--out', type=Path, help='path of the results, without .csv and .png')
    parser.add_argument('--overwrite', action='store_true', help='replace results that are there')
    args = parser.parse_args()
    papers = paper_rows()
    if args.list_papers:
        print('\n'.join(papers))
        return
    if args.out is None or len(args.run) + len(args.paper) < 2:
        parser.error('--out and at least two sides (--run or --paper) are needed')
    targets = [args.out.with_name(args.out.name + suffix) for suffix in ('.csv', '.png')]
    if not args.overwrite and (there := [str(path) for path in targets if path.exists()]):
        parser.error(f'{" and ".join(there)} must not exist; pass --overwrite to replace')
    try:
        sides = {}
        for name, *files in args.run:
            if not files:
                raise ValueError(f'compare_runs: a side must have a name and at least one file, but got {name} alone')
            sides[name] = [read_run(Path(file), args.metric) for file in files]
        for row in args.paper:
            if row not in papers:
                raise ValueError(f'compare_runs: paper must be one of the rows of --list-papers, but got {row}')
            sides[row] = [papers[row]]
        if len(sides) < len(args.run) + len(args.paper):
            raise ValueError(f'compare_runs: names of sides must differ, but got {[*(name for name, *_ in args.run), *args.paper]}')
        result = compare(sides)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print_table(list(sides), *result)
    with whole_file(targets[0]) as values, whole_file(targets[1]) as chart:
        write_csv(values, list(sides), *result)
        draw(chart, list(sides), *result, args.top)
    print('\n'.join(str(path) for path in targets))


if __name__ == '__main__':
    main()
