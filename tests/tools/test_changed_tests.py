"""Which tests a change needs."""

import pytest
from changed_tests import ALWAYS, ROOT, choose

TESTS = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / 'tests').rglob('test_*.py')}


@pytest.mark.parametrize(
    ('changed', 'tests'),
    [
        ('mmpool_ext/layers/gated_pool.py', ['tests/layers/test_gated_pool.py']),
        ('csrc/cpu/lan_pool.cpp', ['tests/ops/test_lan_pool.py']),
        ('tools/misc/changed_tests.py', ['tests/tools/test_changed_tests.py']),
        ('configs/lip/metafile.yml', ['tests/configs/test_lip.py', 'tests/tools/test_write_tables.py']),
        ('tests/test_faq.py', ['tests/test_faq.py']),
        ('LICENSE', []),
    ],
)
def test_by_name(changed, tests):
    assert choose([changed], TESTS) == sorted([*tests, ALWAYS])


def test_by_mention_where_no_test_has_the_name():
    chosen = choose(['tests/reference.py'], TESTS)
    assert 'tests/layers/test_gated_pool.py' in chosen
    assert 'tests/test_faq.py' not in chosen


def test_every_file_of_the_package_has_a_test():
    for path in (ROOT / 'mmpool_ext').rglob('*.py'):
        if path.stem not in ('__init__', '__main__', 'version') and '.mim' not in path.parts:
            assert len(choose([str(path.relative_to(ROOT))], TESTS)) > 1, path.name
