"""The recipes' READMEs are what the command writes, and a changed number in a base file contradicts a recipe."""

import random
import re
import shutil

import pytest
import yaml

pytest.importorskip('mmengine')
import recipes
import write_tables

PAPERS = sorted(path.parent.name for path in recipes.CONFIGS.glob('*/recipes.yml'))
SECTIONS = {  # the sections that the papers have
    'dupsampling': {'3.1', '3.2', '3.3', '4', '4.1', '4.1.1', '4.1.2', '4.1.3', '4.1.4', '4.2'},
    'lip': {'3.1', '3.2', '3.3', '4.1', '4.2', '4.3', '4.4'},
    'ppool': {'4.1', '4.2', '4.3', '4.4'},
    'pyramid': {'3.1', '3.2', '3.3', '3.4', '4', '4.1', '4.2'},
}


@pytest.mark.parametrize('paper', PAPERS)
def test_readme_is_what_the_command_writes(paper):
    folder = recipes.CONFIGS / paper
    assert (folder / 'README.md').read_text() == write_tables.render_readme(folder)


@pytest.mark.parametrize('paper', PAPERS)
def test_sources_are_sections_that_the_paper_has(paper):
    sources = [row['source'] for group in recipes.read(paper) for row in group['recipe']]
    cited = {section for source in sources for section in re.findall(r'paper, Sec\. (\d(?:\.\d)*)', source)}
    assert cited
    assert cited <= SECTIONS[paper]


@pytest.mark.parametrize('paper', PAPERS)
def test_every_planted_change_is_found(paper, tmp_path):
    """Ten numbers of the base files, drawn at random, each changed alone: some config that inherits it breaks its recipe."""
    for codebase in ('mmdet', 'mmseg', 'mmpretrain'):
        pytest.importorskip(codebase)
    folder = shutil.copytree(recipes.CONFIGS / paper, tmp_path / paper)
    groups = recipes.read(paper)
    places = [(path, position) for path in sorted((folder / '_base_').glob('*.py')) for position in recipes.numbers(path)]
    for path, position in random.Random(0).sample(places, min(10, len(places))):
        original = path.read_text()
        heirs = [config for config in sorted(folder.glob('*.py')) if recipes.inherits(config, path)]
        path.write_text(recipes.planted(path, position))
        assert any(recipes.problems(config, groups) for config in heirs), (path.name, position)
        path.write_text(original)


def write(folder, **changes):
    group = dict(group='all', configs=['*.py'], recipe=[dict(quantity='rate', config={'optim_wrapper.lr': 1}, source='paper, Sec. 1')])
    (folder / 'recipes.yml').write_text(yaml.safe_dump([{**group, **changes}]))
    return folder


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'one.py').write_text('optim_wrapper = dict(lr=1, momentum=0.9)\nunread = 3\n')
    return tmp_path


def test_a_leaf_without_a_source_is_a_problem(folder):
    groups = write_tables.read_recipes(write(folder))
    assert recipes.problems(folder / 'one.py', groups) == ['in no row and no baseline: optim_wrapper.momentum = 0.9']


def test_a_wrong_value_and_a_row_without_a_leaf_are_problems(folder):
    rows = [
        dict(quantity='rate', config={'optim_wrapper.lr': 2}, source='paper'),
        dict(quantity='momentum', differs={'optim_wrapper.momentum': [0.8, 0.95]}, source='paper'),
        dict(quantity='decay', config={'optim_wrapper.decay': 0}, source='paper'),
    ]
    found = recipes.problems(folder / 'one.py', write_tables.read_recipes(write(folder, recipe=rows)))
    assert [line.split(': ')[0] for line in found] == ['all, rate', 'all, momentum', 'all, decay']


def test_a_whole_value_must_be_equal(folder):
    rows = [dict(quantity='optimiser', config={'optim_wrapper': dict(lr=1)}, source='paper')]
    assert recipes.problems(folder / 'one.py', write_tables.read_recipes(write(folder, recipe=rows)))
    rows[0]['config']['optim_wrapper']['momentum'] = 0.9
    assert not recipes.problems(folder / 'one.py', write_tables.read_recipes(write(folder, recipe=rows)))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(configs=['two*.py']), r'name configs that exist, but got two\*\.py'),
        (dict(recipe=[dict(quantity='rate', config={})]), 'have rows of quantity, config or differs, source'),
        (dict(baselines='x'), 'have the keys group, configs, recipe'),
    ],
)
def test_bad_recipes(folder, changes, message):
    with pytest.raises(ValueError, match=message.replace('got two', "got 'two")):
        write_tables.read_recipes(write(folder, **changes))


def test_a_config_in_no_group(folder):
    (folder / 'two.py').touch()
    with pytest.raises(ValueError, match=r"have a group for every config, but got \['two'\]"):
        write_tables.read_recipes(write(folder, configs=['one*']))
