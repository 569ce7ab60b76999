"""Print the test files of what differs from a branch: ``make test-fast`` runs them.

    python tools/misc/changed_tests.py [main]

A changed file is tested by the file of its name (``layers/gated_pool.py`` by ``test_gated_pool.py``), else by the test files that mention its name.
A file below configs/ is tested by its paper's file in tests/configs/, a kernel by the tests of its op.
"""

import argparse
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
ALWAYS = 'tests/test_layout.py'


def choose(changed: list[str], tests: dict[str, str]) -> list[str]:
    """Choose test files.

    Args:
        changed: Paths from the root of the repository.
        tests: Text of every test file by its path.

    Returns:
        Paths of test files, sorted.
    """
    chosen = {ALWAYS}
    for path in map(Path, changed):
        top, name = path.parts[0], path.stem
        if str(path) in tests:
            chosen.add(str(path))
        elif top == 'configs' and len(path.parts) > 2:
            chosen |= {test for test in tests if test.startswith(f'tests/configs/test_{path.parts[1]}')} | {'tests/tools/test_write_tables.py'}
        elif top in ('mmpool_ext', 'tools', 'csrc', 'tests') and name != '__init__':
            own = {test for test in tests if Path(test).stem == f'test_{name}'}
            mentions = name.replace('_', '').lower()  # the class of gated_pool.py is GatedPool2d
            chosen |= own or {test for test, text in tests.items() if mentions in text.replace('_', '').lower()}
    return sorted(chosen)


def main():
    """Parse the command line, ask git, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('base', nargs='?', default='main', help='branch or commit to compare with (default: %(default)s)')
    args = parser.parse_args()

    def git(*arguments):
        return subprocess.run(['git', *arguments], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split('\n')[:-1]

    changed = git('diff', '--name-only', '--diff-filter=d', '--merge-base', args.base) + git('ls-files', '--others', '--exclude-standard')
    tests = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / 'tests').rglob('test_*.py')}
    print('\n'.join(choose(changed, tests)))


if __name__ == '__main__':
    main()
