"""A file that a tool writes is whole or not there."""

import pytest

from mmpool_ext.files import whole_file


def test_appears_when_it_is_written(tmp_path):
    path = tmp_path / 'new' / 'report.png'
    with whole_file(path) as unfinished:
        unfinished.write_text('all')
        assert unfinished.name == 'report.png'
        assert not list(path.parent.glob('*.png'))
    assert path.read_text() == 'all'
    assert list(path.parent.iterdir()) == [path]


def test_a_link_stays_one(tmp_path):
    (tmp_path / 'file').write_text('old')
    (tmp_path / 'link').symlink_to('file')
    with whole_file(tmp_path / 'link') as unfinished:
        unfinished.write_text('new')
    assert (tmp_path / 'link').is_symlink()
    assert (tmp_path / 'file').read_text() == 'new'


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / 'report'
    path.write_text('old')

    def fail():
        with whole_file(str(path)) as unfinished:
            unfinished.write_text('ne')
            raise RuntimeError('half')

    with pytest.raises(RuntimeError, match='half'):
        fail()
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]
