"""What the demos share: a run shows its progress, keeps its log, resumes, and fails loudly."""

import ast
import json
import re
from pathlib import Path

import pytest

demo = pytest.importorskip('demo')


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A checkout whose ``tools/upstream.py`` writes what a codebase would, and the commands it saw."""
    (tmp_path / 'tools').mkdir()
    (tmp_path / 'tools' / 'upstream.py').write_text("""
import pathlib, sys
_, codebase, script, *rest = sys.argv
with open('calls.txt', 'a') as calls: calls.write(f'{codebase} {script}\\n')
work_dir = pathlib.Path(rest[rest.index('--work-dir') + 1])
print('11/21 - mmengine - INFO - Iter(train) [ 10/400]  lr: 1e-3')
if pathlib.Path('broken').exists(): sys.exit('the cause')
if script == 'train':
    (work_dir / 'last_checkpoint').write_text('iter_400.pth')
else:
    for time, value in (('20260101_000000', 0.1), ('20260102_000000', 0.9)):
        (work_dir / time).mkdir(parents=True)
        (work_dir / time / f'{time}.json').write_text(f'{{"coco/bbox_mAP": {value}}}')
""")
    monkeypatch.setattr(demo, 'ROOT', tmp_path)
    return tmp_path


def test_trains_then_tests_then_reads_the_newest_metrics(fake):
    assert demo.train_and_test('mmdet', Path('config.py'), fake / 'work') == {'coco/bbox_mAP': 0.9}
    assert (fake / 'calls.txt').read_text().split('\n')[:2] == ['mmdet train', 'mmdet test']
    assert '10/400' in (fake / 'work' / 'train.log').read_text()


def test_what_is_finished_is_not_run_again(fake, capsys):
    for _ in range(2):
        metrics = demo.train_and_test('mmdet', Path('config.py'), fake / 'work')
    assert metrics == {'coco/bbox_mAP': 0.9}
    assert len((fake / 'calls.txt').read_text().split('\n')) == 3
    assert 'trained and tested already; remove' in capsys.readouterr().out


def test_together_they_share_the_cores(fake, monkeypatch):
    monkeypatch.setattr(demo.os, 'sched_getaffinity', lambda _: range(6))
    with (fake / 'tools' / 'upstream.py').open('a') as script:
        script.write("import os; (work_dir / 'threads').write_text(os.environ['OMP_NUM_THREADS'])\n")
    jobs = [('mmdet', Path(f'{name}.py'), fake / name) for name in ('ours', 'theirs')]
    assert demo.train_and_test_together(jobs) == [{'coco/bbox_mAP': 0.9}] * 2
    assert [(fake / name / 'threads').read_text() for name in ('ours', 'theirs')] == ['3', '3']
    (fake / 'broken').touch()
    with pytest.raises(SystemExit, match='train new failed'):
        demo.train_and_test_together([*jobs, ('mmdet', Path('new.py'), fake / 'new')])


def test_no_more_trainings_than_cores_run_at_once(fake, monkeypatch):
    monkeypatch.setattr(demo.os, 'sched_getaffinity', lambda _: range(2))
    with (fake / 'tools' / 'upstream.py').open('a') as script:
        script.write("""
import time
if script == 'train':
    running = pathlib.Path('running'); running.mkdir(exist_ok=True)
    (running / work_dir.name).touch()
    time.sleep(0.5)
    (work_dir / 'beside').write_text(str(len(list(running.iterdir()))))
    (running / work_dir.name).unlink()
""")
    folders = [fake / name for name in 'abcd']
    assert demo.train_and_test_together([('mmseg', Path('config.py'), folder) for folder in folders]) == [{'coco/bbox_mAP': 0.9}] * 4
    assert max(int((folder / 'beside').read_text()) for folder in folders) <= 2


def test_a_failure_shows_the_end_of_the_log(fake):
    (fake / 'broken').touch()
    with pytest.raises(SystemExit, match=r'(?s)the cause.*train config failed; the whole log is .*train.log'):
        demo.train_and_test('mmdet', Path('config.py'), fake / 'work')
    assert not (fake / 'work' / 'metrics.json').exists()


def test_the_table_is_printed_and_saved(tmp_path, capsys):
    rows = {'LIP': {'coco/bbox_mAP_50': 0.75, 'time': 1.0}, 'no LIP': {'coco/bbox_mAP_50': 0.5, 'time': 1.0}}
    demo.print_table('Held-out', rows, {'AP50': 'coco/bbox_mAP_50'}, tmp_path / 'table.json')
    assert json.loads((tmp_path / 'table.json').read_text()) == {'LIP': {'AP50': 0.75}, 'no LIP': {'AP50': 0.5}}
    assert '0.750' in capsys.readouterr().out


def test_the_study_stands_beside_a_single_run(capsys):
    demo.print_study('dupsampling', 'DUpsampling, T = 1')
    said = capsys.readouterr().out
    assert said.startswith('Study on mixed shapes: DUpsampling, T = 1 loses ')
    assert '(5 seeds)' in said
    assert '**' not in said


@pytest.mark.parametrize('script', sorted(path for path in (demo.ROOT / 'tools' / 'demo').glob('demo_*.py') if 'print_study' in path.read_text()))
def test_demos_name_arms_of_the_study(script):
    from study import STUDY, load_study

    claims = load_study(STUDY)
    claim, *arms = ast.literal_eval(re.search(r'print_study(\(.*\))', script.read_text())[1])
    assert set(arms) <= set(claims[claim]['arms'])
