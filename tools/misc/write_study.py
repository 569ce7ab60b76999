"""Write docs/study: the tables and pictures of the study on shapes, from the JSON files of its runs (tools/study.py).

    python tools/misc/write_study.py

A difference is paired: of two runs with the same seed, which have the same data in the same order. Its interval is Student's, 95%, over the seeds.
"""

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1]))
from study import RUNS, STUDY, baselines, load_study

from mmpool_ext.files import whole_file

PAGE = RUNS.parent / 'index.md'
MIN_SEEDS = 3  # for a sentence: of two differences, Student's interval is 9 standard deviations wide on each side
HEAD = """# Study on shapes

What each method does on data that anybody can make, with several seeds an arm. These are small networks on drawn shapes with photographs behind
them: they tell an effect from luck here, and whether the implementation shows in kind what a paper claims. They say nothing about the papers'
figures.

- `make study` trains and tests all of it (`make study-ppool` one claim; `make study DRY_RUN=1` lists runs and hours). It resumes. On the same machine
  a run repeats its figures exactly.
- `python tools/misc/write_study.py` writes this page from `docs/study/runs`, a JSON file a run. The arms are in `configs/shapes/study.yml`.
- Data: 400 training and 200 held-out images of 160 x 160 pixels, `tools/demo/make_shapes.py --preset`: `mixed` has objects of all sizes, `thin`
  lines of 1 to 2 pixels and stripes with a period of 2 to 5, `small` boxes and discs 6 to 16 pixels wide and signs 10 to 16 high. Data seeds
  are fixed; a training seed varies initialisation, order and flips.
- All arms of a claim have one schedule, the demo's, unless their name says otherwise. Its learning rate is chosen for the baseline: the rows
  "of the rate" say what that does at a third and at three times of it.
- "±" is the standard deviation over seeds. A difference is paired by seed, in points, with Student's 95% interval. Each interval stands for one
  comparison: of twenty that differ in nothing, one excludes 0.
"""


@dataclass(frozen=True)
class Comparison:
    """Values of an arm and its baseline by seed, in points."""

    values: np.ndarray
    differences: np.ndarray  # of the seeds that both have

    @property
    def interval(self):
        """Low and high end of the 95% interval of the mean difference; None with less than two seeds."""
        if len(self.differences) < 2:
            return None
        mean, error = self.differences.mean(), stats.sem(self.differences)
        half = stats.t.ppf(0.975, len(self.differences) - 1) * error
        return mean - half, mean + half


def load_runs(folder):
    """Return the runs in a folder of JSON files as ``{claim: {arm: {seed: record}}}``."""
    runs = {}
    for path in sorted(folder.glob('*/*.json')):
        record = json.loads(path.read_text())
        runs.setdefault(record['claim'], {}).setdefault(record['arm'], {})[record['seed']] = record
    return runs


def compare(runs, arm, baseline, key):
    """Compare an arm with a baseline by one metric; without a baseline there are no differences."""
    scale = 100 if key.startswith('coco/') else 1  # fractions; all else is in percent or pixels
    own = {seed: scale * record['metrics'][key] for seed, record in sorted(runs[arm].items())}
    other = {seed: scale * record['metrics'][key] for seed, record in runs.get(baseline, {}).items()}
    return Comparison(np.array(list(own.values())), np.array([own[seed] - other[seed] for seed in own if seed in other]))


def cell(values, sign=''):
    """Format mean and standard deviation, with one value the mean alone; ``sign='+'`` shows the sign of a positive mean too."""
    return f'{values.mean():{sign}.1f}' + (f' ± {values.std(ddof=1):.1f}' if len(values) > 1 else '')


def signed(comparison):
    """Format a paired difference and its interval, bold where the interval excludes 0."""
    if len(comparison.differences) == 0:
        return ''
    text = f'{comparison.differences.mean():+.1f}'
    if comparison.interval:
        low, high = comparison.interval
        text += f' [{low:+.1f}, {high:+.1f}]'
        if low > 0 or high < 0:
            text = f'**{text}**'
    return text


def table(claim, runs, arms):
    """Return the Markdown table of some arms."""
    metrics = claim['metrics']
    others = any('baseline' in claim['arms'][arm] for arm in arms)
    heads = ['arm', 'seeds', *metrics, *(f'{name}, difference' for name in metrics), *(['from'] if others else [])]
    lines = ['| ' + ' | '.join(heads) + ' |', '|---' * len(heads) + '|']
    for arm in arms:
        for baseline in baselines(claim, arm) or ['']:
            compared = [compare(runs, arm, baseline, key) for key in metrics.values()]
            row = [arm, str(len(runs[arm])), *(cell(one.values) for one in compared), *map(signed, compared), *([baseline] if others else [])]
            lines.append('| ' + ' | '.join(row) + ' |')
    return '\n'.join(lines)


def sentences(claim, runs, arm):
    """Return what the claim's first metric says about an arm: a sentence for each of its baselines with at least ``MIN_SEEDS`` common seeds."""
    metric = next(iter(claim['metrics']))
    compared = {baseline: compare(runs, arm, baseline, claim['metrics'][metric]) for baseline in baselines(claim, arm)}
    return [sentence(arm, baseline, metric, one) for baseline, one in compared.items() if len(one.differences) >= MIN_SEEDS]


def sentence(arm, baseline, metric, comparison):
    """Return the sentence about an arm and one baseline: gains, loses, or cannot be told apart where the interval includes 0."""
    low, high = comparison.interval
    seeds = len(comparison.differences)
    if low > 0:
        return f'**{arm}** gains {low:.1f} to {high:.1f} points of {metric} over {baseline} ({seeds} seeds).'
    if high < 0:
        return f'**{arm}** loses {-high:.1f} to {-low:.1f} points of {metric} against {baseline} ({seeds} seeds).'
    return f'**{arm}** and {baseline} cannot be told apart by {metric}: {low:+.1f} to {high:+.1f} points ({seeds} seeds).'


def levels(of_seed):
    """Return Table 2c of a pyramid: a row each level that predicts, a column each group of pixels by the fuser's level, 1 the coarsest."""
    metrics = [{key.removeprefix('pyramid/mIoU_'): value for key, value in record['metrics'].items()} for record in of_seed.values()]
    numbers = range(1, 1 + sum(re.fullmatch(r'level\d+', key) is not None for key in metrics[0]))
    column = lambda key: cell(np.array([row[key] for row in metrics]))  # noqa: E731
    shares = [column(f'pyramid/share_level{number}') for number in numbers]
    lines = ['| predicted by | ' + ' | '.join(f'on pixels of level {on}' for on in numbers) + ' | alone |', '|---' * (len(numbers) + 2) + '|']
    for by in numbers:
        cells = [column(key) for key in (*(f'level{by}_on{on}' for on in numbers), f'level{by}')]
        lines.append(f'| level {by} | ' + ' | '.join(cells) + ' |')
    return '\n'.join([*lines, '| share of pixels, % | ' + ' | '.join(shares) + ' | |'])


def logged(claim, runs):
    """Return a table of what the trainings logged last, mean over seeds; empty if nothing was."""
    means = {}
    for arm, of_seed in runs.items():
        keys = sorted({key for record in of_seed.values() for key in record['logged']})
        means[arm] = {key: np.mean([record['logged'][key] for record in of_seed.values() if key in record['logged']]) for key in keys}
    keys = sorted({key for row in means.values() for key in row})
    if not keys:
        return ''
    lines = ['| after training | ' + ' | '.join(f'`{key}`' for key in keys) + ' |', '|---' * (len(keys) + 1) + '|']
    lines += [f'| {arm} | ' + ' | '.join(f'{row[key]:.2f}' if key in row else '' for key in keys) + ' |' for arm, row in means.items() if row]
    return '\n'.join(lines)


def draw(claim, runs, arms, path):
    """Draw each seed's difference from the baseline, and mean and interval, an arm a line and a metric a panel."""
    metrics = list(claim['metrics'])[:3]
    pairs = [(arm, baseline) for arm in arms for baseline in baselines(claim, arm)]
    names = [arm if baselines(claim, arm) == [claim['baseline']] else f'{arm}\n(from {baseline})' for arm, baseline in pairs]
    figure, panels = plt.subplots(1, len(metrics), figsize=(3.2 * len(metrics) + 3.5, 0.36 * len(pairs) + 1.2), sharey=True, layout='constrained')
    for axes, metric in zip(np.atleast_1d(panels), metrics, strict=True):
        for line, (arm, baseline) in enumerate(pairs):
            comparison = compare(runs, arm, baseline, claim['metrics'][metric])
            axes.plot(comparison.differences, np.full(len(comparison.differences), line), 'o', color='0.6', markersize=4)
            if comparison.interval:
                low, high = comparison.interval
                colour = 'tab:green' if low > 0 else 'tab:red' if high < 0 else 'black'
                axes.plot([low, high], [line, line], color=colour, linewidth=2)
                axes.plot(comparison.differences.mean(), line, 'D', color=colour, markersize=6)
        axes.axvline(0, color='black', linewidth=0.8)
        axes.set(xlabel=f'{metric}, points', yticks=range(len(pairs)), yticklabels=names)
    np.atleast_1d(panels)[0].set_ylim(len(pairs) - 0.5, -0.5)  # the first arm on top
    with whole_file(path) as unfinished:
        figure.savefig(unfinished, dpi=90, metadata={'Software': None})
    plt.close(figure)


def draw_curves(runs, name, path):
    """Draw what trainings logged over their iterations, each arm's mean over its seeds and, as a band, their range."""
    figure, axes = plt.subplots(figsize=(7, 3.6), layout='constrained')
    for arm, of_seed in runs.items():
        steps, values = np.array([record['curve'] for record in of_seed.values()]).T
        (line,) = axes.plot(steps[:, 0], values.mean(1), label=f'{arm}, {values.shape[1]} seeds')
        axes.fill_between(steps[:, 0], values.min(1), values.max(1), color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(xlabel='iteration', ylabel=name)
    axes.legend()
    with whole_file(path) as unfinished:
        figure.savefig(unfinished, dpi=90, metadata={'Software': None})
    plt.close(figure)


def classes(of_seed):
    """Return Fig. 3 of a pyramid as a table: each class's IoU of each level minus the fused map's, a row a class."""
    metrics = [record['metrics'] for record in of_seed.values()]
    names = [key.removeprefix('pyramid/IoU/') for key in metrics[0] if key.startswith('pyramid/IoU/')]
    numbers = range(1, 1 + sum(re.fullmatch(r'pyramid/mIoU_level\d+', key) is not None for key in metrics[0]))
    lines = ['| class | ' + ' | '.join(f'level {by} minus fused' for by in numbers) + ' | fused |', '|---' * (len(numbers) + 2) + '|']
    for name in names:
        fused = np.array([row[f'pyramid/IoU/{name}'] for row in metrics])
        differences = [np.array([row[f'pyramid/IoU_level{by}/{name}'] for row in metrics]) - fused for by in numbers]
        lines.append(f'| {name} | ' + ' | '.join(cell(one, '+') for one in differences) + f' | {cell(fused)} |')
    return '\n'.join(lines)


def write(study, folder, page):
    """Write the page and its pictures."""
    claims, runs = load_study(study), load_runs(folder)
    parts, summary = [], []
    for name, claim in claims.items():
        have = runs.get(name, {})
        arms = [arm for arm in claim['arms'] if arm in have]
        core = [arm for arm in arms if not {'known', 'rate', 'levels'} & claim['arms'][arm].keys()]
        controls = [arm for arm in arms if {'known', 'rate'} & claim['arms'][arm].keys()]
        parts.append(f'\n## {claim["title"]}\n\n{claim["question"]} Data: `{claim["data"]}`. Config: `{claim["config"]}`.\n')
        planned = {arm: settings.get('seeds', claim['seeds']) for arm, settings in claim['arms'].items()}
        done = sum(min(len(have.get(arm, {})), count) for arm, count in planned.items())
        if done < sum(planned.values()):
            parts.append(f'{done} of {sum(planned.values())} runs are finished; `make study-{name}` makes the others.\n')
        if claim['baseline'] not in have:
            continue
        said = [text for arm in core for text in sentences(claim, have, arm)]
        if said:
            summary += [f'- [{claim["title"].split(":")[0]}](#{slug_of_heading(claim["title"])})', *(f'    - {text}' for text in said)]
        parts.append(table(claim, have, core) + '\n')
        if 'note' in claim:
            parts.append(claim['note'])
        if len(core) > 1:
            picture = page.parent / f'{name}.png'
            draw(claim, have, core, picture)
            parts.append(f'![{claim["title"]}: differences by seed, and intervals]({picture.name})\n')
        for title, metrics in claim.get('tables', {}).items():
            measured = [arm for arm in core if all(set(metrics.values()) <= record['metrics'].keys() for record in have[arm].values())]
            if claim['baseline'] in measured:
                parts.append(f'{title}:\n\n{table(claim | dict(metrics=metrics), have, measured)}\n')
        for arm in (arm for arm in arms if claim['arms'][arm].get('levels')):
            fused = cell(np.array([record['metrics']['pyramid/mIoU'] for record in have[arm].values()]))
            parts.append(f'{arm}: mIoU of each level on the pixels that the fuser gives to each level; fused, {fused}.\n\n{levels(have[arm])}\n')
            parts.append(f"{arm}: IoU of each class, each level used alone minus the fused map (the paper's Fig. 3).\n\n{classes(have[arm])}\n")
        if curves := claim.get('curves'):
            drawn = {arm: of_seed for arm in curves['arms'] if (of_seed := {seed: row for seed, row in have.get(arm, {}).items() if 'curve' in row})}
            if drawn:
                picture = page.parent / f'{name}_curves.png'
                draw_curves(drawn, curves['of'], picture)
                parts.append(f'![{curves["title"]}]({picture.name})\n\n{curves["title"]}.\n')
        if text := logged(claim, have):
            parts.append(text + '\n')
        if controls:
            parts.append(
                'Can these data tell? Rows that are known to be worse, and other learning rates of the baseline:\n\n'
                + table(claim, have, controls)
                + '\n'
            )
    records = [record for of_claim in runs.values() for of_arm in of_claim.values() for record in of_arm.values()]
    hardware = ', '.join(sorted({record['hardware'] for record in records}))
    commits = ', '.join(sorted({record['commit'] or 'unknown' for record in records}))
    torch = ', '.join(sorted({record['stack']['torch'] for record in records}))
    hours = sum(record['seconds'] for record in records) / 3600
    facts = f'\n{len(records)} runs, {hours:.1f} hours of one thread each, torch {torch}, {hardware}, commits {commits}.\n'
    with whole_file(page) as unfinished:
        unfinished.write_text(HEAD + facts + '\n## Summary\n\n' + '\n'.join(summary) + '\n' + '\n'.join(parts))


def slug_of_heading(title):
    """Return the anchor that Python-Markdown gives a heading."""
    words = ''.join(letter for letter in title.lower() if letter.isalnum() or letter in ' -')
    return '-'.join(words.split())


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    write(STUDY, RUNS, PAGE)
    print(f'{PAGE}: written')


if __name__ == '__main__':
    main()
