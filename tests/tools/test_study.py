"""The study: its arms, what survives an interruption, and its page."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from make_shapes import make_shapes
from scipy import stats

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
import study
import write_study
from mmengine.registry import DATASETS, MODELS, DefaultScope

import mmpool_ext  # noqa: F401 registers what the arms are made of

CLAIMS = study.load_study(study.STUDY)
ARMS = [(claim, arm) for claim in CLAIMS for arm in CLAIMS[claim]['arms']]


@pytest.mark.parametrize(('claim', 'arm'), ARMS, ids=lambda name: study.slug(name))
def test_every_arm_is_a_network_of_its_own_or_trains_otherwise(claim, arm):
    configs = {other: study.resolve(CLAIMS[claim], other).to_dict() for other in {arm, CLAIMS[claim]['baseline']}}
    if arm != CLAIMS[claim]['baseline']:
        assert configs[arm] != configs[CLAIMS[claim]['baseline']]
    cfg = study.resolve(CLAIMS[claim], arm)
    assert f'data/study/{CLAIMS[claim]["data"]}/' in json.dumps(cfg.to_dict())
    assert 'data/shapes/' not in json.dumps(cfg.to_dict())
    if 'upsample' in (cfg.model.get('decode_head') or {}):
        assert cfg.model.decode_head.upsample.pop('weight') in {f'work_dirs/study/fits/{fit}.pth' for fit in CLAIMS[claim]['fits']}
    with DefaultScope.overwrite_default_scope(CLAIMS[claim]['codebase']):
        __import__(CLAIMS[claim]['codebase'])
        MODELS.build(cfg.model)


@pytest.mark.parametrize('name', CLAIMS)
def test_every_claim_reads_its_data(name, tmp_path):
    """Resolved configs keep the types that pipelines ask for, on their way through a file as well."""
    make_shapes(tmp_path, num_train=1, num_val=1)
    claim = CLAIMS[name]
    text = study.resolve(claim, claim['baseline']).dump().replace(f'data/study/{claim["data"]}/', f'{tmp_path}/')
    cfg = study.Config.fromstring(text, '.py')
    with DefaultScope.overwrite_default_scope(claim['codebase']):
        for loader in (cfg.train_dataloader, cfg.test_dataloader):
            assert DATASETS.build(loader.dataset)[0]['inputs'].shape == (3, 160, 160)


@pytest.mark.parametrize(('claim', 'arm'), [(claim, arm) for claim, arm in ARMS if 'the rate' in arm], ids=lambda name: study.slug(name))
def test_rates_are_a_third_and_three_times_of_the_claims(claim, arm):
    rates = {name: study.resolve(CLAIMS[claim], name).optim_wrapper.optimizer.lr for name in (arm, CLAIMS[claim]['baseline'])}
    assert rates[arm] == pytest.approx(rates[CLAIMS[claim]['baseline']] * (3 if 'three times' in arm else 1 / 3), rel=0.01)


def test_fits_fit_their_heads():
    """An auto-encoder's W has a hidden layer of 4 times the channels."""
    claim = CLAIMS['dupsampling']
    for arm in claim['arms']:
        upsample = study.resolve(claim, arm).model.decode_head.get('upsample')
        if upsample is not None:
            method = claim['fits'][Path(upsample.weight).stem]
            assert upsample.get('hidden_channels') == (256 if 'autoencoder' in method else None), arm


def test_arms_of_the_core_claims_have_five_seeds():
    core = dict(ppool=10, dupsampling=12, pyramid=12, lip=13)  # with what must come out behind
    for claim, number in core.items():
        seeds = [settings.get('seeds', CLAIMS[claim]['seeds']) for settings in CLAIMS[claim]['arms'].values()]
        assert sum(count >= 5 for count in seeds) == number
        assert min(seeds) >= 3


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('a: {baseline: none, arms: {x: {}}}', 'baseline of a, x must be one of its arms, but got none'),
        ('a: {baseline: x y, arms: {x y: {}, x-y: {}}}', 'arms of a must differ in letters or digits, but got x y, x-y'),
    ],
)
def test_a_study_that_contradicts_itself_is_an_error(tmp_path, text, message):
    (tmp_path / 'study.yml').write_text(text)
    with pytest.raises(ValueError, match=message):
        study.load_study(tmp_path / 'study.yml')


def test_a_run_of_another_definition_is_no_result(tmp_path):
    record = tmp_path / 'x-0.json'
    run = study.Run('ppool', 'x', 0, dict(new=1), record, tmp_path)
    assert not study.finished(run)
    record.write_text(json.dumps(dict(digest='old')))
    with pytest.raises(ValueError, match=rf"was made with another config of 'x' \(old, now {run.digest}\); remove it"):
        study.finished(run)
    record.write_text(json.dumps(dict(digest=run.digest)))
    assert study.finished(run)


@pytest.mark.parametrize(('arm', 'fits'), [('DUpsampling, stride 16', ['pca16']), ('DUpsampling, stride 32', ['pca32']), ('bilinear, fused', [])])
def test_only_what_the_runs_need_is_fitted(tmp_path, monkeypatch, arm, fits):
    """The fits by SGD and by an auto-encoder take longer than a training."""
    commands = []
    monkeypatch.setattr(study, 'DATA', tmp_path)
    monkeypatch.setattr(study, 'WORK_DIR', tmp_path / 'work_dirs')
    monkeypatch.setattr(study.subprocess, 'run', lambda command, **_: commands.append(command))
    (tmp_path / 'mixed').mkdir()
    study.prepare(CLAIMS, study.plan(CLAIMS, ['dupsampling'], [arm], 1))
    assert [command[command.index('--out') + 1].stem for command in commands] == fits


def test_a_run_that_fails_does_not_stop_the_others(tmp_path, monkeypatch):
    def carry_out(run, claim, bar):
        if run.seed == 0:
            raise OSError('no space')
        run.record.write_text(json.dumps(dict(digest=run.digest)))

    monkeypatch.setattr(study, 'carry_out', carry_out)
    runs = [study.Run('a', 'x', seed, {}, tmp_path / f'x-{seed}.json', tmp_path) for seed in range(3)]
    assert study.carry_out_all(dict(a={}), runs, 1) == ['no space']
    assert [study.finished(run) for run in runs] == [False, True, True]


def test_seeds_come_in_turn_so_that_an_interrupted_study_is_balanced():
    runs = study.plan(CLAIMS, ['pyramid'], ['A: *', 'H: *'], None)
    assert [(run.arm[0], run.seed) for run in runs] == [(arm, seed) for seed in range(5) for arm in 'AH']
    assert len({run.record for run in runs}) == 10
    assert len({run.digest for run in runs}) == 2


# The study with a small claim in a folder of its own. An argument says where to die.
DRIVER = """
import os
import signal
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
import study
folder = Path({folder!r})
study.STUDY, study.RUNS, study.WORK_DIR, study.DATA = folder / 'study.yml', folder / 'runs', folder / 'work_dirs', folder / 'data'
resolve = study.resolve
def resolve_here(claim, arm):
    cfg = resolve(claim, arm)
    text = cfg.dump().replace('data/study', str(folder / 'data'))
    return study.Config.fromstring(text, '.py')
study.resolve = resolve_here
if sys.argv[1] == 'write':
    replace = Path.replace
    def die(self, target):
        if Path(target).suffix == '.json':
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)
    Path.replace = die
sys.argv = ['study.py', '--jobs', '1']
study.main()
"""
SMALL = """
small:
  config: bilinear_r18-os16_1xb8-400i_shapes-160x160
  codebase: mmseg
  data: mixed
  seeds: 1
  minutes: 1
  baseline: x
  set: {train_cfg: {max_iters: 2}, train_dataloader: {batch_size: 2, num_workers: 0, persistent_workers: false}, test_dataloader: {num_workers: 0}}
  arms: {x: {}}
"""


def small_study(folder):
    """Write the small study and its data, and return the command that carries it out."""
    folder.mkdir()
    (folder / 'study.yml').write_text(SMALL)
    make_shapes(folder / 'data' / 'mixed', num_train=4, num_val=2, size=64)
    paths = [str(study.ROOT / 'tools'), str(study.ROOT / 'tools' / 'demo')]
    (folder / 'driver.py').write_text(DRIVER.format(paths=paths, folder=str(folder)))
    return [sys.executable, folder / 'driver.py']


def kill_when(command, folder, pattern):
    """Start the study and send SIGKILL as soon as a file is there and has content."""
    with subprocess.Popen([*command, 'nowhere'], cwd=study.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 120
        while not any(path.stat().st_size for path in folder.glob(pattern)):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_study_goes_on_without_loss_and_repeats_its_figures(tmp_path):
    folder = tmp_path / 'killed'
    command = small_study(folder)
    record = folder / 'runs' / 'small' / 'x-0.json'
    kill_when(command, folder, 'work_dirs/small/x-0/unfinished-*/train.log')
    assert not record.exists()
    kill_when(command, folder, 'work_dirs/small/x-0/unfinished-*/test.log')
    trained = next((folder / 'work_dirs' / 'small' / 'x-0').glob('trained-*'))
    checkpoint = next(trained.glob('iter_*.pth'))
    written = checkpoint.stat().st_mtime_ns
    assert subprocess.run([*command, 'write'], cwd=study.ROOT, capture_output=True).returncode == -signal.SIGKILL
    assert not record.exists()
    subprocess.run([*command, 'nowhere'], cwd=study.ROOT, capture_output=True, check=True)
    assert checkpoint.stat().st_mtime_ns == written  # the training was not repeated
    at_once = small_study(tmp_path / 'at_once')
    subprocess.run([*at_once, 'nowhere'], cwd=study.ROOT, capture_output=True, check=True)
    metrics = [json.loads(path.read_text())['metrics'] for path in (record, tmp_path / 'at_once' / 'runs' / 'small' / 'x-0.json')]
    assert metrics[0] == metrics[1]
    assert 'mIoU' in metrics[0]
    before = record.stat().st_mtime_ns
    subprocess.run([*command, 'nowhere'], cwd=study.ROOT, capture_output=True, check=True)
    assert record.stat().st_mtime_ns == before  # nothing is repeated


def records(values):
    """Runs of one claim from ``{arm: values by seed}``."""
    return {arm: {seed: dict(metrics=dict(m=value), logged={}) for seed, value in enumerate(of_arm)} for arm, of_arm in values.items()}


CLAIM = dict(
    codebase='mmseg',
    baseline='b',
    metrics={'m': 'm'},
    arms={'b': {}, 'x': {}, 'y': dict(baseline='x'), 'z': dict(baseline=['b', 'x']), 'alone': dict(baseline=[])},
)


def test_intervals_are_those_of_a_paired_t_test():
    rng = np.random.default_rng(0)
    base = rng.normal(50, 3, 5)
    runs = records(dict(b=base, x=base + rng.normal(2, 0.5, 5), y=base[:3]))
    ours = write_study.compare(runs, 'x', 'b', 'm').interval
    values = [[record['metrics']['m'] for record in runs[arm].values()] for arm in 'xb']
    theirs = stats.ttest_rel(*values).confidence_interval(0.95)
    assert ours == pytest.approx((theirs.low, theirs.high))
    assert len(write_study.compare(runs, 'y', 'x', 'm').differences) == 3  # seeds that both have
    assert write_study.compare(runs, 'b', '', 'm').interval is None


@pytest.mark.parametrize(
    ('shift', 'said'),
    [
        (2, 'gains 1.5 to 2.5 points of m over b'),
        (-2, 'loses 1.5 to 2.5 points of m against b'),
        (0.1, 'cannot be told apart by m: -0.4 to +0.6 points'),
    ],
)
def test_a_sentence_says_no_more_than_its_interval(shift, said):
    steps = np.array([-1, 0, 1]) * 0.2
    runs = records(dict(b=[50, 51, 52], x=np.array([50, 51, 52]) + shift + steps))
    (text,) = write_study.sentences(CLAIM, runs, 'x')
    assert said in text


def test_one_or_two_seeds_make_no_sentence():
    assert write_study.sentences(CLAIM, records(dict(b=[50, 51], x=[52, 54])), 'x') == []
    assert write_study.sentences(CLAIM, records(dict(b=[50], x=[52])), 'x') == []
    assert write_study.signed(write_study.compare(records(dict(b=[50], x=[52])), 'x', 'b', 'm')) == '+2.0'


def test_an_arm_is_compared_with_every_baseline_that_it_names():
    runs = records(dict(b=[50, 51, 52], x=[60, 61.5, 62], z=[55, 55.5, 57], alone=[90, 91, 92]))
    assert [text.split(' (')[0] for text in write_study.sentences(CLAIM, runs, 'z')] == [
        '**z** gains 4.1 to 5.6 points of m over b',
        '**z** loses 3.9 to 6.8 points of m against x',
    ]
    assert [write_study.sentences(CLAIM, runs, arm) for arm in ('b', 'alone')] == [[], []]
    rows = write_study.table(CLAIM, runs, ['b', 'z', 'alone']).splitlines()[2:]
    assert [row.split(' | ')[0] for row in rows] == ['| b', '| z', '| z', '| alone']
    assert [row.split(' | ')[-1] for row in rows] == [' |', 'b |', 'x |', ' |']


def test_fractions_of_mmdet_become_points():
    runs = {
        arm: {seed: dict(metrics={'coco/m': value, 'field_radius': value}) for seed, value in enumerate(values)}
        for arm, values in (('b', [0.5, 0.5]), ('x', [0.52, 0.53]))
    }
    assert write_study.compare(runs, 'x', 'b', 'coco/m').differences == pytest.approx([2, 3])
    assert write_study.compare(runs, 'x', 'b', 'field_radius').differences == pytest.approx([0.02, 0.03])  # pixels


def test_levels_are_rows_and_groups_of_pixels_columns():
    values = {'share_level1': 75, 'share_level2': 25, 'mIoU_level1': 50, 'mIoU_level2': 40, 'mIoU': 60}
    values |= {f'mIoU_level{by}_on{on}': 10 * by + on for by in (1, 2) for on in (1, 2)}
    seeds = {seed: dict(metrics={f'pyramid/{key}': value + seed for key, value in values.items()} | dict(mIoU=seed)) for seed in range(3)}
    assert write_study.levels(seeds).splitlines() == [
        '| predicted by | on pixels of level 1 | on pixels of level 2 | alone |',
        '|---|---|---|---|',
        '| level 1 | 12.0 ± 1.0 | 13.0 ± 1.0 | 51.0 ± 1.0 |',
        '| level 2 | 22.0 ± 1.0 | 23.0 ± 1.0 | 41.0 ± 1.0 |',
        '| share of pixels, % | 76.0 ± 1.0 | 26.0 ± 1.0 | |',
    ]


def test_classes_are_rows_and_levels_columns():
    seeds = {seed: {'pyramid/mIoU_level1': 0, 'pyramid/IoU/disk': 60 + seed, 'pyramid/IoU_level1/disk': 50 + 2 * seed} for seed in range(3)}
    assert write_study.classes({seed: dict(metrics=metrics) for seed, metrics in seeds.items()}).splitlines() == [
        '| class | level 1 minus fused | fused |',
        '|---|---|---|',
        '| disk | -9.0 ± 1.0 | 61.0 ± 1.0 |',
    ]
    assert write_study.classes({0: dict(metrics=seeds[0])}).splitlines()[-1] == '| disk | -10.0 | 60.0 |'  # one seed has no deviation


def test_a_curve_is_what_was_logged_under_its_name(tmp_path):
    rows = [dict(loss=3.0, step=10), dict(lr=1, step=10), dict(loss=2.5, step=20)]
    path = tmp_path / '20260101' / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    assert study.curve(tmp_path, 'loss') == [[10, 3.0], [20, 2.5]]
    runs = dict(x={seed: dict(curve=[[10, 3.0 + seed], [20, 2.5]]) for seed in range(2)})
    write_study.draw_curves(runs, 'loss', tmp_path / 'curves.png')
    assert (tmp_path / 'curves.png').stat().st_size > 1000


def test_curves_are_of_arms_with_five_seeds():
    for claim in CLAIMS.values():
        for arm in claim.get('curves', {}).get('arms', ()):
            assert claim['arms'][arm].get('seeds', claim['seeds']) == 5


def test_committed_page_is_what_the_committed_runs_make(tmp_path):
    write_study.write(study.STUDY, study.RUNS, tmp_path / 'index.md')
    assert (tmp_path / 'index.md').read_text() == write_study.PAGE.read_text()
    assert {path.name for path in tmp_path.glob('*.png')} == {path.name for path in write_study.PAGE.parent.glob('*.png')}


def test_committed_runs_are_of_the_arms_as_they_are():
    runs = {run.record: run for run in study.plan(CLAIMS, CLAIMS, (), None)}
    for path in study.RUNS.glob('*/*.json'):
        assert path in runs, f'{path.name} is of no arm'
        assert study.finished(runs[path])


def test_readme_says_what_the_page_says():
    """Every interval in README's sentences is one of the page's summary."""
    section = re.search(r'## Evidence\n(.*?)\n## ', (study.ROOT / 'README.md').read_text(), re.S)[1]
    said = re.findall(r'[-+]?\d+\.\d to [-+]?\d+\.\d points', section)
    assert len(said) >= 5
    summary = write_study.PAGE.read_text().split('## Summary')[1].split('\n## ')[0]
    assert [text for text in said if text not in summary] == []
