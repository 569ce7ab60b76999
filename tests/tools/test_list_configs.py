"""configs/README.md is what the command writes, and what it says of costs and papers is so."""

import json

import pytest
import yaml

pytest.importorskip('mmengine')
import list_configs
from list_configs import CONFIGS

COSTS = json.loads((CONFIGS / 'costs.json').read_text())
PAPERS = list_configs.read_papers(CONFIGS)
ROWS = [(folder.name, table['columns'], row) for folder, paper in PAPERS for table in paper['tables'] for row in table['rows'] if row.get('config')]
# Costs that no reading of the paper gives (spelt out below the tables)
NOT_REPRODUCED = {('lip', 'LIP, projection'), ('dupsampling', 'ResNet-50, vanilla, conv1_3 + b3u6c3')}


def test_committed_file_is_what_the_command_writes():
    assert (CONFIGS / 'README.md').read_text() == list_configs.render(CONFIGS)


def test_every_experiment_is_counted():
    assert set(COSTS) == set(list_configs.listed_configs(PAPERS))


def test_counted_costs_are_the_papers():
    """Parameters and operations that a paper prints, each within 1%."""
    compared = 0
    for folder, columns, row in ROWS:
        counted = COSTS[f'{folder}/{row["config"]}']
        for column, figure in zip(columns, row['paper'], strict=True):
            unit = {'parameters': 1e6, 'lip': 1e9, 'dupsampling': 1e9}.get(column)
            if unit and (folder, row['row']) not in NOT_REPRODUCED:
                assert counted[column] / unit == pytest.approx(float(figure), rel=0.01), row
                compared += 1
    assert compared >= 15


def test_one_network_counted_again():
    pytest.importorskip('mmseg')
    import get_flops

    name = 'dupsampling/bilinear_label-encoder-os16_4xb12-100k_voc12-513x513'
    assert get_flops.costs(CONFIGS / f'{name}.py') == COSTS[name]


def test_papers_figures_are_the_metafiles():
    figures = {}
    for folder, _, row in ROWS:
        figures.setdefault(f'configs/{folder}/{row["config"]}.py', set()).update(row['paper'])
    compared = 0
    for folder, _ in PAPERS:
        for model in yaml.load((folder / 'metafile.yml').read_text(), Loader=yaml.BaseLoader)['Models']:
            for metric, value in (pair for result in model.get('Results', ()) for pair in result['Metrics'].items()):
                if metric.endswith('(paper)') and model['Config'] in figures:
                    assert float(value) in {float(figure) for figure in figures[model['Config']] if figure[0].isdigit()}, model['Name']
                    compared += 1
    assert compared > 80


@pytest.fixture
def small(tmp_path):
    """Two networks of one paper, of which a table names the first."""
    folder = tmp_path / 'method'
    folder.mkdir()
    for name in ('named', 'further'):
        (folder / f'{name}.py').touch()

    def write(row):
        paper = dict(paper='A paper', tables=[dict(title='Table 1', columns=['mIoU', 'lip'], rows=[row])])
        (folder / 'tables.yml').write_text(yaml.safe_dump(paper))
        return tmp_path

    return write


def test_counts_what_is_missing_and_forgets_what_is_gone(small, monkeypatch):
    configs = small(dict(row='ours', config='named', paper=['70.0', '2.00'], shape=['8', '9'], measured=['69.5', ''], source='a log'))
    calls = []

    def costs(path, shape):
        calls.append((path.stem, shape))
        return dict(shape=shape or [4, 4], parameters=2_000_000, multiply_adds=3_456_789_000, pooling=5_000_000, activations=1, lip=2_010_000_000)

    monkeypatch.setattr('get_flops.costs', costs)
    (configs / 'costs.json').write_text('{"method/gone": {}}')
    list_configs.count(configs)
    list_configs.count(configs)
    assert calls == [('further', None), ('named', (8, 9))]
    lines = list_configs.render(configs).splitlines()
    assert '| ours | [config](method/named.py) | 70.0 | 2.00 | 8 x 9 | 2 | 3.457 | 0.005 | 2.01 | mIoU 69.5 (a log) |' in lines
    assert '| [further](method/further.py) | 4 x 4 | 2 | 3.457 | 0.005 |' in lines
    (configs / 'method' / 'further.py').unlink()
    list_configs.count(configs)
    assert 'further' not in (configs / 'costs.json').read_text()


@pytest.mark.parametrize(
    ('row', 'message'),
    [
        (dict(paper=['70.0']), r"method, Table 1, ours: paper must have one entry for each of \['mIoU', 'lip'\], but got \['70.0'\]"),
        (dict(paper=['70.0', ''], measured=['1', '2']), 'method, Table 1, ours must have a source if and only if it was measured'),
        (dict(paper=['70.0', ''], config='nowhere'), "method, Table 1, ours: config must be a file in method/, but got 'nowhere'"),
        (dict(paper=['70.0', ''], confg='named'), r"must have no other keys than .*, but got \['confg'\]"),
    ],
)
def test_bad_rows(small, row, message):
    with pytest.raises(ValueError, match=f'list_configs: .*{message}' if message.startswith('must') else f'list_configs: {message}'):
        list_configs.read_papers(small(dict(row='ours', **row)))
