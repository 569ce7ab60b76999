"""Train and test what configs/shapes/study.yml compares, several seeds each, by upstream's own scripts; a JSON file for every run.

    python tools/study.py --dry-run                       runs, and hours for those that are missing
    python tools/study.py ppool --arms max P-pooling      some arms of one claim
    python tools/misc/write_study.py                      write docs/study from the JSON files

Each run has one thread, and as many go at once as there are cores. What is finished is never repeated: an interrupted study goes on with the runs
that lack a JSON file in docs/study/runs, and a run whose training was finished with its test. A training that was interrupted starts again, so that
a seed's figure does not depend on interruptions. Trainings and checkpoints are in work_dirs/study, data in data/study.
"""

import argparse
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

warnings.filterwarnings('ignore', 'pkg_resources is deprecated')
from mmengine.config import Config  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn  # noqa: E402
from rich.table import Table  # noqa: E402

import mmpool_ext  # noqa: E402, F401 tells mmengine where configs are
from mmpool_ext.files import whole_file  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent / 'demo'))
import demo  # noqa: E402
from make_shapes import make_shapes  # noqa: E402

ROOT = demo.ROOT
STUDY = ROOT / 'configs' / 'shapes' / 'study.yml'
RUNS = ROOT / 'docs' / 'study' / 'runs'
WORK_DIR = ROOT / 'work_dirs' / 'study'
DATA = ROOT / 'data' / 'study'
PACKAGES = ('torch', 'mmengine', 'mmcv', 'mmdet', 'mmsegmentation')


@dataclass(frozen=True)
class Run:
    """One arm of a claim with one seed."""

    claim: str
    arm: str
    seed: int
    config: dict  # resolved: mmengine cannot read configs in several threads
    record: Path  # the JSON file
    work_dir: Path

    @property
    def digest(self):
        """Digest of the config: a run whose definition changed is no result."""
        return hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()[:12]


def slug(name):
    """Return a name as a part of a path."""
    return re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')


def baselines(claim, arm):
    """Return the arms that an arm's seeds are compared with: the claim's baseline, or what the arm says, one or several."""
    if arm == claim['baseline']:
        return []
    named = claim['arms'][arm].get('baseline', claim['baseline'])
    return [named] if isinstance(named, str) else named


def load_study(path):
    """Read the claims and check what is easy to mistype.

    Raises:
        ValueError: If a baseline is no arm of its claim, or two arms would share a file.
    """
    claims = yaml.safe_load(path.read_text())
    for name, claim in claims.items():
        for arm in claim['arms']:
            for baseline in [claim['baseline'], *baselines(claim, arm)]:
                if baseline not in claim['arms']:
                    raise ValueError(f'{path.name}: baseline of {name}, {arm} must be one of its arms, but got {baseline}')
        if len({slug(arm) for arm in claim['arms']}) < len(claim['arms']):
            raise ValueError(f'{path.name}: arms of {name} must differ in letters or digits, but got {", ".join(claim["arms"])}')
    return claims


def relocated(value, folder):
    """Return a config's value with ``folder`` in the place of the demos' data."""
    if isinstance(value, dict):
        return {key: relocated(item, folder) for key, item in value.items()}
    if isinstance(value, (list, tuple)):  # mmcv's Resize takes tuples alone
        return type(value)(relocated(item, folder) for item in value)
    return value.replace('data/shapes/', folder) if isinstance(value, str) else value


def resolve(claim, arm):
    """Return the config of an arm: the claim's config, the claim's changes, the arm's, each as a file that inherits the one before."""
    with tempfile.TemporaryDirectory() as folder:
        base = demo.CONFIGS / f'{claim["config"]}.py'
        for name, changes in (('claim', claim.get('set', {})), ('arm', claim['arms'][arm].get('set', {}))):
            path = Path(folder, f'{name}.py')
            path.write_text(f'_base_ = {str(base)!r}\n' + ''.join(f'{key} = {value!r}\n' for key, value in changes.items()))
            base = path
        cfg = Config.fromfile(base)
    return Config(relocated(cfg.to_dict(), f'data/study/{claim["data"]}/'))


def plan(claims, wanted_claims, patterns, seeds):
    """Return the runs of the chosen claims and arms."""
    runs = []
    for name in wanted_claims:
        claim = claims[name]
        for arm in claim['arms']:
            if patterns and not any(fnmatchcase(arm, pattern) for pattern in patterns):
                continue
            config = resolve(claim, arm).to_dict()
            for seed in range(min(seeds or 10**6, claim['arms'][arm].get('seeds', claim['seeds']))):
                stem = f'{slug(arm)}-{seed}'
                runs.append(Run(name, arm, seed, config, RUNS / name / f'{stem}.json', WORK_DIR / name / stem))
    return sorted(runs, key=lambda run: (list(claims).index(run.claim), run.seed))  # an interrupted study has as many seeds of each arm


def finished(run):
    """Whether a run has its JSON file.

    Raises:
        ValueError: If the file is of another definition of the arm.
    """
    if not run.record.exists():
        return False
    digest = json.loads(run.record.read_text())['digest']
    if digest != run.digest:
        where = os.path.relpath(run.record, ROOT)
        raise ValueError(f'study: {where} was made with another config of {run.arm!r} ({digest}, now {run.digest}); remove it to run it again')
    return True


def minutes(claim, name):
    """Return the minutes a run takes: the first quartile of the claim's finished runs, or what the study's file says."""
    taken = sorted(json.loads(path.read_text())['seconds'] / 60 for path in RUNS.glob(f'{name}/*.json'))
    return taken[len(taken) // 4] if taken else claim['minutes']  # the others shared their core with other work more often


def processor():
    """Return the processor's name."""
    names = [line.split(':')[1].strip() for line in Path('/proc/cpuinfo').read_text().splitlines() if line.startswith('model name')]
    return names[0] if names else platform.machine()


def circumstances():
    """Return commit, versions and hardware."""
    git = subprocess.run(['git', 'describe', '--always', '--dirty', '--abbrev=12'], cwd=ROOT, capture_output=True, text=True)
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return dict(commit=git.stdout.strip() or None, stack=dict(python=platform.python_version(), **versions), hardware=processor(), threads=1)


def logged(folder, pattern):
    """Return the last value of everything that a training logged under a name with ``pattern`` in it."""
    last = {}
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            last |= {key: value for key, value in json.loads(line).items() if pattern in key}
    return last


def curve(folder, name):
    """Return ``[iteration, value]`` of everything that a training logged under a name."""
    rows = [json.loads(line) for path in sorted(folder.glob('*/vis_data/scalars.json')) for line in path.read_text().splitlines()]
    return [[row['step'], round(row[name], 6)] for row in rows if name in row]


def measured(tool, config, checkpoint, folder, *options):
    """Return what a tool of tools/analysis_tools measures on a checkpoint."""
    path, out = ROOT / 'tools' / 'analysis_tools' / f'{tool}.py', folder / f'{tool}.json'
    command = [sys.executable, path, config, checkpoint, '--out', out, *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {'OMP_NUM_THREADS': '1'}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise RuntimeError(f'{done.stdout}\n{tool} failed for {checkpoint}')
    return json.loads(out.read_text())


def shift_consistency(*of_run, shifts):
    """Return the percentage of pixels that keep their class when the image moves, as ``shift_<pixels>``."""
    return {f'shift_{shift}': 100 * share for shift, share in measured('measure_shift', *of_run, '--shifts', *shifts).items()}


def receptive_fields(*of_run, num_images):
    """Return radius (pixels) and shares on objects (percent) of effective receptive fields."""
    means = measured('measure_receptive_field', *of_run, '--num-images', num_images)
    return dict(field_radius=means['radius'], field_inside=100 * means['inside'], field_beside=100 * means['beside'])


def carry_out(run, claim, bar):
    """Train and test one run, unless its training is finished already, and write its JSON file."""
    run.work_dir.mkdir(parents=True, exist_ok=True)
    trained = run.work_dir / f'trained-{run.digest}'
    for left in run.work_dir.glob('unfinished-*'):
        shutil.rmtree(left)
    cfg = Config(run.config)
    cfg.randomness = dict(seed=run.seed)
    how = dict(bar=bar, threads=1)
    title = f'{run.claim}: {run.arm}, seed {run.seed}'
    if not trained.exists():
        unfinished = Path(tempfile.mkdtemp(prefix='unfinished-', dir=run.work_dir))
        config = unfinished / 'config.py'
        cfg.dump(config)
        begin = time.monotonic()
        demo.run(f'train {title}', unfinished / 'train.log', claim['codebase'], 'train', config, '--work-dir', unfinished, **how)
        (unfinished / 'seconds').write_text(str(time.monotonic() - begin))
        unfinished.replace(trained)
    begin = time.monotonic()
    tested = Path(tempfile.mkdtemp(prefix='unfinished-', dir=run.work_dir))
    checkpoint = max(trained.glob('iter_*.pth'), key=lambda path: int(path.stem[5:]))
    arguments = (claim['codebase'], 'test', trained / 'config.py', checkpoint, '--work-dir', tested)
    demo.run(f'test  {title}', tested / 'test.log', *arguments, **how)
    metrics = json.loads(max(tested.glob('*/*.json')).read_text())
    of_run = trained / 'config.py', checkpoint, tested
    if 'shifts' in claim:
        metrics |= shift_consistency(*of_run, shifts=claim['shifts'])
    if 'fields' in claim:
        metrics |= receptive_fields(*of_run, num_images=claim['fields'])
    shutil.rmtree(tested)
    record = dict(
        claim=run.claim,
        arm=run.arm,
        seed=run.seed,
        digest=run.digest,
        metrics={key: round(value, 6) for key, value in sorted(metrics.items()) if key not in ('time', 'data_time')},
        logged={key: round(value, 6) for key, value in sorted(logged(trained, claim.get('log', '\0')).items())},
        **(dict(curve=curve(trained, claim['curves']['of'])) if run.arm in claim.get('curves', {}).get('arms', ()) else {}),
        seconds=round(float((trained / 'seconds').read_text()) + time.monotonic() - begin, 1),
        **circumstances(),
    )
    points = re.compile(r'\[\s+(\d+),\s+(\S+)\s+\]')  # a point of a curve to a line
    with whole_file(run.record) as unfinished_record:
        unfinished_record.write_text(points.sub(r'[\1, \2]', json.dumps(record, indent=1)) + '\n')


def prepare(claims, runs):
    """Make the data, and fit W where a run needs it."""
    for preset in {claims[run.claim]['data'] for run in runs}:
        if not (DATA / preset).exists():
            make_shapes(DATA / preset, num_val=200, preset=preset)
    for name in {run.claim for run in runs}:
        claim = claims[name]
        configs = str([run.config for run in runs if run.claim == name])
        for fit, options in claim.get('fits', {}).items():
            out = WORK_DIR / 'fits' / f'{fit}.pth'
            if out.exists() or f'fits/{out.name}' not in configs:
                continue
            out.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory() as folder:
                config = Path(folder, 'config.py')
                resolve(claim, claim['baseline']).dump(config)
                tool = ROOT / 'tools' / 'analysis_tools' / 'fit_dupsampling.py'
                subprocess.run([sys.executable, tool, config, '--out', out, '--overwrite', *map(str, options)], cwd=ROOT, check=True)


def show(claims, runs, jobs):
    """Print what there is to do, and how long it takes."""
    table = Table('claim', 'arm', 'seeds', 'finished', 'minutes a run', title='Study on shapes')
    whole = left = 0.0
    for name, arm in dict.fromkeys((run.claim, run.arm) for run in runs):
        of_arm = [run for run in runs if (run.claim, run.arm) == (name, arm)]
        done, cost = sum(map(finished, of_arm)), minutes(claims[name], name)
        whole += cost * len(of_arm)
        left += cost * (len(of_arm) - done)
        table.add_row(name, arm, str(len(of_arm)), str(done), f'{cost:.1f}')
    console = Console()
    console.print(table)
    missing = sum(not finished(run) for run in runs)
    hours = f'{len(runs)} runs, about {whole / 60 / jobs:.1f} hours with {jobs} at once; {missing} of them to do, about {left / 60 / jobs:.1f} hours'
    console.print(hours, soft_wrap=True)


def carry_out_all(claims, runs, jobs):
    """Carry out the missing runs, several at once, with a bar for the whole and one for each; return messages of those that failed."""
    missing = [run for run in runs if not finished(run)]
    failed = []
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar, ThreadPoolExecutor(jobs) as pool:
        whole = bar.add_task('runs', total=len(missing))
        futures = [pool.submit(carry_out, run, claims[run.claim], bar) for run in missing]
        for future in as_completed(futures):
            try:
                future.result()
            except (SystemExit, Exception) as error:  # demo.run exits where a script failed; the other runs go on
                failed.append(str(error))
            bar.advance(whole)
            for task in list(bar.tasks):
                if task.id != whole and task.stop_time is not None:
                    bar.remove_task(task.id)
    return failed


def main():
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    claims = load_study(STUDY)
    parser.add_argument('claims', nargs='*', metavar='CLAIM', help=f'of {", ".join(claims)} (default: all)')
    parser.add_argument('--arms', nargs='+', default=(), metavar='PATTERN', help="names of arms, with * for anything: 'A:*'")
    parser.add_argument('--seeds', type=int, help='at most so many seeds an arm (default: as the study says, 5 or 3)')
    parser.add_argument('--jobs', type=int, default=len(os.sched_getaffinity(0)), help='runs at once (default: %(default)s, one a core)')
    parser.add_argument('--dry-run', action='store_true', help='only print the runs and the time they take')
    args = parser.parse_args()
    for claim in args.claims:
        if claim not in claims:
            parser.error(f'CLAIM must be one of {", ".join(claims)}, but got {claim}')
    for name, value in (('--jobs', args.jobs), ('--seeds', args.seeds)):
        if value is not None and value < 1:
            parser.error(f'{name} must be >= 1, but got {value}')
    runs = plan(claims, args.claims or claims, args.arms, args.seeds)
    if not runs:
        parser.error(f'--arms must match arms of the claims, but got {" ".join(args.arms)}')
    try:
        show(claims, runs, args.jobs)
    except ValueError as error:
        parser.error(str(error))
    if args.dry_run:
        return
    WORK_DIR.mkdir(parents=True, exist_ok=True)
    with (WORK_DIR / 'lock').open('w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            parser.error(f'another study is at work in {WORK_DIR}')
        prepare(claims, [run for run in runs if not finished(run)])
        if failed := carry_out_all(claims, runs, args.jobs):
            sys.exit('\n\n'.join([*failed, f'{len(failed)} runs failed; call again to try them again']))


if __name__ == '__main__':
    main()
