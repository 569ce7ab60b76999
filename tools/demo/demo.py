"""Functions of the demos: make the shapes data, train and test by a codebase's own scripts, print a table."""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

ROOT = Path(__file__).parents[2]
SHAPES = ROOT / 'data' / 'shapes'
CONFIGS = ROOT / 'configs' / 'shapes'
WORK_DIRS = ROOT / 'work_dirs' / 'demo'


def make_shapes() -> None:
    """Make the shapes data set where the configs expect it, unless it is there."""
    if not SHAPES.exists():
        subprocess.run([sys.executable, ROOT / 'tools' / 'demo' / 'make_shapes.py', SHAPES], check=True)


def run(title: str, log: Path, *arguments: str | Path, bar: Progress, threads: int | None = None) -> None:
    """Run ``tools/upstream.py`` with a progress bar for its iterations; everything it prints goes to a log file.

    Args:
        title: What the bar says.
        log: File that is appended to.
        arguments: Of ``tools/upstream.py``.
        bar: Where the iterations are shown.
        threads: Threads of the process; as many as it likes by default.

    Raises:
        SystemExit: If it fails, after the end of the log.
    """
    command = [sys.executable, ROOT / 'tools' / 'upstream.py', *arguments]
    environment = os.environ | ({'OMP_NUM_THREADS': str(threads)} if threads else {})
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with log.open('a') as file, subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as process:
        task = bar.add_task(title, total=None)
        for line in process.stdout:
            file.write(line)
            file.flush()
            if step := re.search(r'\((?:train|test)\)\s*\[\s*(\d+)/(\d+)\]', line):
                bar.update(task, completed=int(step[1]), total=int(step[2]))
        bar.stop_task(task)
    if process.returncode:
        tail = ''.join(log.read_text().splitlines(keepends=True)[-20:])
        sys.exit(f'{tail}\n{title} failed; the whole log is {log}')


def progress() -> Progress:
    """Bars for :func:`run`."""
    return Progress('{task.description}', BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())


def train_and_test(
    codebase: str, config: Path, work_dir: Path, *test_options: str | Path, bar: Progress | None = None, threads: int | None = None
) -> dict[str, float]:
    """Train and evaluate a config by the codebase's own ``tools/train.py`` and ``tools/test.py``.

    An interrupted training resumes from its last checkpoint, and what is finished is not run again.

    Args:
        codebase: ``'mmdet'``, ``'mmseg'`` or ``'mmpretrain'``.
        config: Config file.
        work_dir: Folder for checkpoints, logs and ``metrics.json``.
        test_options: More options for ``tools/test.py``.
        bar: Where the iterations are shown; bars of its own by default.
        threads: Threads of each process; as many as it likes by default.

    Returns:
        The metrics under the names that the codebase logs, such as ``coco/bbox_mAP_50`` or ``mIoU``.
    """
    if bar is None:
        with progress() as bar:
            return train_and_test(codebase, config, work_dir, *test_options, bar=bar, threads=threads)
    metrics = work_dir / 'metrics.json'
    if metrics.exists():
        bar.console.print(f'{config.stem}: trained and tested already; remove {work_dir} to do it again', soft_wrap=True)
        return json.loads(metrics.read_text())
    work_dir.mkdir(parents=True, exist_ok=True)
    how = dict(bar=bar, threads=threads)
    run(f'train {config.stem}', work_dir / 'train.log', codebase, 'train', config, '--work-dir', work_dir, '--resume', **how)
    checkpoint = (work_dir / 'last_checkpoint').read_text()
    run(f'test  {config.stem}', work_dir / 'test.log', codebase, 'test', config, checkpoint, '--work-dir', work_dir / 'test', *test_options, **how)
    max((work_dir / 'test').glob('*/*.json')).replace(metrics)  # the folders are named by time
    return json.loads(metrics.read_text())


def train_and_test_together(jobs: list[tuple]) -> list[dict[str, float]]:
    """Run several :func:`train_and_test` at once, as many as there are cores, and divide the cores' threads among them.

    Threads of one process wait for each other at every small op if another process takes their core, which can make a training 40 times slower.

    Args:
        jobs: Positional arguments of :func:`train_and_test` for each.

    Returns:
        What each returned.
    """
    cores = len(os.sched_getaffinity(0))
    threads = max(1, cores // len(jobs))
    with progress() as bar, ThreadPoolExecutor(min(cores, len(jobs))) as pool:
        return [future.result() for future in [pool.submit(train_and_test, *job, bar=bar, threads=threads) for job in jobs]]


def print_table(title: str, rows: dict[str, dict[str, float]], columns: dict[str, str], path: Path) -> None:
    """Print chosen metrics of each row and save them as JSON.

    Args:
        title: Heading of the table.
        rows: Metrics of :func:`train_and_test` by the row's name.
        columns: Key of the metric by the column's heading.
        path: JSON file ``{row: {column: value}}``.
    """
    values = {name: {column: metrics[key] for column, key in columns.items()} for name, metrics in rows.items()}
    path.write_text(json.dumps(values, indent=2) + '\n')
    table = Table('', *columns, title=title)
    for name, row in values.items():
        table.add_row(name, *(f'{value:.3f}' for value in row.values()))
    Console().print(table)


def print_study(claim: str, *arms: str) -> None:
    """Print what several seeds say (docs/study), beside a demo's single run.

    Args:
        claim: Of configs/shapes/study.yml.
        arms: Those that the demo shows.
    """
    for folder in ('tools', 'tools/misc'):
        sys.path.append(str(ROOT / folder))
    from study import RUNS, STUDY, load_study
    from write_study import load_runs, sentences

    claims, runs = load_study(STUDY), load_runs(RUNS).get(claim, {})
    for arm in arms:
        said = sentences(claims[claim], runs, arm) if arm in runs else []
        for text in said or [f'{arm} has not been trained with several seeds yet.']:
            Console().print(f'Study on {claims[claim]["data"]} shapes: {text.replace("**", "")}', soft_wrap=True, highlight=False)
