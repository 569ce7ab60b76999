"""Run a script of an installed codebase, such as mmdet's own tools/train.py, from anywhere.

    python tools/upstream.py mmdet train CONFIG --work-dir work_dirs/x
    python tools/upstream.py mmseg test CONFIG CHECKPOINT --help

All arguments after the script's name are passed to it; ``torchrun`` works too. Two problems are avoided: torch >= 2.6 refuses the checkpoints that
mmengine <= 0.10.7 writes (TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set), and the onedl forks do not find ``_base_ = 'mmseg::...'`` (mmpool_ext
is imported first, which mends that). ``_base_ = 'mmpool_ext::...'`` is found, too.
"""

import argparse
import os
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path


def script_path(codebase: str, script: str) -> Path:
    """Return the path of ``tools/<script>.py`` inside an installed codebase.

    Raises:
        ValueError: If the codebase is not installed, or has no such script.
    """
    spec = find_spec(codebase)
    if spec is None:
        raise ValueError(f'upstream: codebase must be installed, but got {codebase}')
    path = Path(spec.submodule_search_locations[0], '.mim', 'tools', f'{script}.py')
    if not path.exists():
        known = ', '.join(sorted(entry.stem for entry in path.parent.glob('*.py')))
        raise ValueError(f"upstream: script must be one of {codebase}'s ({known}), but got {script}")
    return path


def main():
    """Parse the command line and run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('codebase', choices=['mmdet', 'mmseg', 'mmpretrain'])
    parser.add_argument('script', help="path in the codebase's tools/, without .py: train, test, misc/print_config, ...")
    parser.add_argument('arguments', nargs=argparse.REMAINDER, help='for the script')
    args = parser.parse_args()
    try:
        path = script_path(args.codebase, args.script)
    except ValueError as error:
        parser.error(str(error))
    import mmpool_ext  # noqa: F401 tells mmengine where its configs are, and those of the forks

    os.environ.setdefault('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    sys.argv = [str(path), *args.arguments]
    sys.path[0] = str(path.parent)
    runpy.run_path(str(path), run_name='__main__')


if __name__ == '__main__':
    main()
