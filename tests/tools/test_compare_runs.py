"""compare_runs reads what the codebases write, averages seeds, and holds the papers' rows."""

import json
import sys

import compare_runs
import numpy as np
import pytest
from compare_runs import compare, paper_rows, read_run

LOG = """2026/01/01 00:00:00 - mmengine - INFO - per class results:
2026/01/01 00:00:00 - mmengine - INFO -
+------------+-------+-------+
|   Class    |  IoU  |  Acc  |
+------------+-------+-------+
| background | 10.0  | 20.0  |
|    disc    |  nan  | 40.0  |
+------------+-------+-------+
per class results:

+------------+-------+-------+
|   Class    |  IoU  |  Acc  |
+------------+-------+-------+
| background | {:.1f} | 95.0  |
|    disc    | {:.1f} | 65.0  |
+------------+-------+-------+
Iter(test) [10/10]    aAcc: 90.0  mIoU: 75.0
"""


def test_reads_the_last_table_of_a_log(tmp_path):
    path = tmp_path / 'a.log'
    path.write_text(LOG.format(90, 60))
    assert read_run(path) == {'background': 90.0, 'disc': 60.0}
    assert read_run(path, 'Acc') == {'background': 95.0, 'disc': 65.0}


def test_reads_what_mmseg_prints(tmp_path):
    """The real metric's own table, through mmengine's logger."""
    pytest.importorskip('mmseg')
    import torch
    from mmengine.logging import MMLogger
    from mmseg.evaluation import IoUMetric

    logger = MMLogger.get_instance('compare-runs', log_file=str(tmp_path / 'a.log'), logger_name='compare-runs')
    MMLogger._instance_dict['compare-runs'] = logger
    metric = IoUMetric()
    metric.dataset_meta = dict(classes=('background', 'disc'))
    label = torch.tensor([[[0, 0, 1, 1]]])
    metric.process({}, [dict(pred_sem_seg=dict(data=torch.tensor([[[0, 0, 0, 1]]])), gt_sem_seg=dict(data=label))])
    metric.compute_metrics(metric.results)
    values = read_run(tmp_path / 'a.log')
    assert values == {'background': pytest.approx(66.67), 'disc': 50.0}


def test_reads_json(tmp_path):
    path = tmp_path / 'a.json'
    path.write_text(json.dumps({'coco/bbox_mAP': 0.4, 'coco/box_precision': 0.5, 'coco/disc_precision': 0.3}))
    assert read_run(path) == {'box': 50.0, 'disc': 30.0}
    path.write_text(json.dumps({'box': 12, 'disc': 13.5}))
    assert read_run(path) == {'box': 12.0, 'disc': 13.5}


def test_mean_and_spread_over_seeds():
    names, means, deviations = compare({'a': [dict(x=1.0, y=3.0), dict(x=3.0, y=5.0)], 'b': [dict(y=10.0, x=0.0)]})
    assert names == ['x', 'y', 'mean']
    np.testing.assert_allclose(means, [[2, 4, 3], [0, 10, 5]])
    np.testing.assert_allclose(deviations[0], [2**0.5] * 3)
    assert np.isnan(deviations[1]).all()


def test_mean_of_the_classes_that_have_a_value():
    """As mmseg's mIoU: a class that is neither labelled nor predicted is NaN in its table."""
    _, means, _ = compare({'a': [dict(cat=50.0, dog=np.nan, cow=70.0)], 'b': [dict(cat=60.0, dog=np.nan, cow=70.0)]})
    np.testing.assert_allclose(means, [[50, np.nan, 70, 60], [60, np.nan, 70, 65]])


def test_paper_rows():
    """24 rows of 21 classes; each printed mean is that of its classes up to rounding."""
    rows = paper_rows()
    assert len(rows) == 24
    assert {len(row) for row in rows.values()} == {21}
    with compare_runs.PAPER.open() as file:
        for line in list(file)[1:]:
            name, *_, mean = line.strip().split(',')
            assert abs(np.mean(list(rows[name].values())) - float(mean)) < 0.08
    assert rows['table2/Deeplabv3/P-pooling']['sofa'] == 46.1
    assert rows['supplement-table1/VGG/Strided-C']['bicycle'] == 19.9


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['compare_runs', *map(str, arguments)])
    compare_runs.main()


def test_command_line(tmp_path, monkeypatch, capsys):
    for seed, values in enumerate([(80, 40), (90, 60)]):
        (tmp_path / f'{seed}.log').write_text(LOG.format(*values))
    (tmp_path / 'b.json').write_text(json.dumps(dict(background=85.5, disc=60.5)))
    out = tmp_path / 'out' / 'v1.0'
    arguments = ('--run', 'max', tmp_path / '0.log', tmp_path / '1.log', '--run', 'P', tmp_path / 'b.json', '--out', out)
    run(monkeypatch, *arguments)
    printed = capsys.readouterr().out
    assert '50.00 ± 14.14' in printed
    assert '60.50 (+10.50)' in printed
    assert sorted(path.name for path in out.parent.iterdir()) == ['v1.0.csv', 'v1.0.png']
    assert (out.parent / 'v1.0.csv').read_text().splitlines()[1] == 'background,85.0000,7.0711,85.5000,'
    with pytest.raises(SystemExit):
        run(monkeypatch, *arguments)
    assert 'must not exist; pass --overwrite to replace' in capsys.readouterr().err
    run(monkeypatch, *arguments, '--overwrite')


def test_papers_against_each_other(tmp_path, monkeypatch, capsys):
    run(monkeypatch, '--list-papers')
    assert 'table3/FCN/P-pooling' in capsys.readouterr().out.split()
    run(monkeypatch, '--paper', 'table3/FCN/without', '--paper', 'table3/FCN/P-pooling', '--out', tmp_path / 'x')
    assert '62.98 (+1.99)' in capsys.readouterr().out  # printed as 62.99 and 61.01


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--paper', 'table3/FCN/without', '--out', 'x'), 'at least two sides'),
        (('--paper', 'table3/FCN/without', '--paper', 'table9', '--out', 'x'), 'paper must be one of the rows of --list-papers, but got table9'),
        (('--run', 'a', '--run', 'b', 'c', '--out', 'x'), 'a side must have a name and at least one file, but got a alone'),
        (('--paper', 'table3/FCN/without', '--paper', 'table3/FCN/without', '--out', 'x'), 'names of sides must differ'),
        (('--run', 'a', 'nowhere.log', '--run', 'b', 'c', '--out', 'x'), 'No such file'),
    ],
)
def test_bad_command_lines(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        run(monkeypatch, *arguments)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_bad_files(tmp_path):
    path = tmp_path / 'a.log'
    path.write_text('nothing')
    with pytest.raises(ValueError, match='a log must hold a table of per class results with the column IoU, but got no such table'):
        read_run(path)
    path.write_text(LOG.format(90, 60))
    with pytest.raises(ValueError, match='with the column Dice, but got the columns IoU, Acc'):
        read_run(path, 'Dice')
    with pytest.raises(ValueError, match='all runs must have the same classes, but got y, z in only one of a and b'):
        compare({'a': [dict(x=1, y=2)], 'b': [dict(x=1, z=2)]})
