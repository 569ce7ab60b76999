#!/usr/bin/env python
"""Build the ops for a release of torch in an environment of their own, run their tests there and note the result.

    python tools/misc/ops_matrix.py --python python3.10 --torch 2.1.2
    python tools/misc/ops_matrix.py --python python3.10 --torch 2.1.2 --quick   # what CI runs; notes nothing
    python tools/misc/ops_matrix.py --table              # write the table of docs/compatibility.md alone

Nothing of OpenMMLab is installed. The environment (.venv-ops/...) is kept for the next call; sources are built and tested in a copy, so that the
clone's own library stays as it is. Each result is a file in docs/compatibility/, and the table of the page is written from all of them.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / 'docs' / 'compatibility'
PAGE = ROOT / 'docs' / 'compatibility.md'
SOURCES = ('csrc', 'mmpool_ext/ops', 'mmpool_ext/__init__.py', 'mmpool_ext/lazy.py', 'mmpool_ext/version.py', 'tests/ops')
FILES = ('setup.py', 'pyproject.toml', 'README.md')


def call(*command, **kwargs):
    """Run a command; exit with what it printed if it fails."""
    done = subprocess.run([*map(str, command)], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kwargs)
    if done.returncode:
        sys.exit(f'{done.stdout}\nops_matrix: failed: {" ".join(map(str, command))}')
    return done.stdout


def find_python(name):
    """Return an interpreter that runs: the name itself, or that of pyenv, whose python3.10 on PATH runs only where pyenv was told to use it."""
    root = Path(os.environ.get('PYENV_ROOT', Path.home() / '.pyenv'))
    release = Path(name).name.removeprefix('python')
    for candidate in (name, *sorted(root.glob(f'versions/{release}.*/bin/python'))):
        if shutil.which(candidate) and subprocess.run([candidate, '-c', ''], capture_output=True).returncode == 0:
            return candidate
    sys.exit(f'ops_matrix: --python must be an interpreter that runs, but got {name}; install it')


def environment(python, torch):
    """Set up an environment with this torch; returns its Python."""
    version = call(python, '-c', 'import platform; print(platform.python_version())').strip()
    folder = ROOT / '.venv-ops' / f'python{version}-torch{torch}'
    inside = folder / 'bin' / 'python'
    if not (folder / 'done').exists():
        shutil.rmtree(folder, ignore_errors=True)
        call(python, '-m', 'venv', folder)
        release = tuple(map(int, torch.split('.')[:2]))
        numpy = 'numpy<2' if release < (2, 3) else 'numpy'  # torch before 2.3 was built against numpy 1
        setuptools = 'setuptools<81' if release < (2, 9) else 'setuptools'  # older torch builds by pkg_resources, newer asks for a newer one
        needs = (f'torch=={torch}', numpy, setuptools, 'wheel', 'ninja', 'pytest', 'hypothesis', 'expecttest')
        call(inside, '-m', 'pip', 'install', '-q', *needs)
        (folder / 'done').touch()
    return inside


def test(python, torch, quick):
    """Build and test in a copy, ``quick`` without what no release of torch changes: the CUDA kernels as host code; returns the facts to note."""
    start = time.monotonic()
    inside = environment(python, torch)
    ready = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for source in SOURCES:
            (folder / source).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
            copy(ROOT / source, folder / source)
        helpers = [path.relative_to(ROOT) for path in (ROOT / 'tests').glob('*.py') if not path.name.startswith('test_')]
        for file in (*FILES, *helpers):
            shutil.copy(ROOT / file, folder / file)
        path = os.pathsep.join([str(inside.parent), os.environ['PATH']])
        variables = dict(os.environ, PATH=path, PYTHONPATH=str(folder), FORCE_CUDA='0')
        call(inside, 'setup.py', '-q', 'build_ext', '--inplace', cwd=folder, env=variables)
        built = time.monotonic()
        command = [inside, '-m', 'pytest', 'tests/ops', '-q', '-p', 'no:cacheprovider', '-o', 'addopts=']
        command += ['--ignore', 'tests/ops/test_cuda_kernels.py'] if quick else []
        done = subprocess.run(command, cwd=folder, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    counts = {name: int(number) for number, name in re.findall(r'(\d+) (passed|failed|skipped|error)', done.stdout.strip().rpartition('\n')[2])}
    if not counts.get('passed'):
        sys.exit(f'{done.stdout}\nops_matrix: no test passed')
    failed = re.findall(r'^(?:FAILED|ERROR) (\S+)', done.stdout, re.M)
    facts = dict(python=call(inside, '-c', 'import platform; print(platform.python_version())').strip(), torch=torch, **counts, failures=failed)
    seconds = dict(seconds_set_up=ready - start, seconds_build=built - ready, seconds_tests=time.monotonic() - built)
    return facts | {name: round(value) for name, value in seconds.items()} | dict(system=platform.platform(), cores=os.cpu_count())


def table():
    """Lines of the table of all results."""
    rows = [json.loads(path.read_text()) for path in RESULTS.glob('*.json')]
    yield '| Python | torch | passed | skipped | failed | build | tests |'
    yield '|---|---|---|---|---|---|---|'
    for row in sorted(rows, key=lambda row: [int(part) for part in re.findall(r'\d+', f'{row["torch"]} {row["python"]}')]):
        failed = row.get('failed', 0) + row.get('error', 0)
        counts = f'{row["passed"]} | {row.get("skipped", 0)} | {failed}'
        yield f'| {row["python"]} | {row["torch"]} | {counts} | {row["seconds_build"]} s | {row["seconds_tests"]} s |'


def write_page():
    """Replace the table of the page."""
    begin, end = '<!-- table of tools/misc/ops_matrix.py -->\n', '<!-- end -->'
    head, rest = PAGE.read_text().split(begin)
    text = head + begin + '\n'.join(table()) + '\n' + end + rest.split(end)[1]
    partial = PAGE.with_suffix('.partial')
    partial.write_text(text)
    partial.replace(PAGE)


def main():
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--python', default='python3', help='(default: %(default)s)')
    parser.add_argument('--torch', help='release, such as 2.1.2')
    parser.add_argument('--quick', action='store_true', help='leave the CUDA kernels out, and note no result')
    parser.add_argument('--table', action='store_true', help='write the table alone')
    args = parser.parse_args()
    if not args.table:
        if not args.torch or not re.fullmatch(r'\d+\.\d+\.\d+', args.torch):
            parser.error(f'--torch must be a release such as 2.1.2, but got {args.torch}')
        facts = test(find_python(args.python), args.torch, args.quick)
        print(json.dumps(facts, indent=1))
        if args.quick:
            sys.exit('ops_matrix: tests failed' if facts['failures'] else 0)
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f'python{facts["python"]}-torch{facts["torch"]}.json'
        path.with_suffix('.partial').write_text(json.dumps(facts, indent=1) + '\n')
        path.with_suffix('.partial').replace(path)
        if facts['failures']:
            write_page()
            sys.exit('ops_matrix: tests failed')
    write_page()


if __name__ == '__main__':
    main()
