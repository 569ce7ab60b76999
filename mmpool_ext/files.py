"""Write files whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Let a file appear when all of it is written.

    Args:
        path: The file. Its folder is made where there is none.

    Yields:
        A hidden path in the same folder and with the same suffix, to be written. When the block ends it is renamed to ``path``; when it raises,
        removed.

    Example:
        >>> with whole_file('/tmp/mmpool_ext_example/report.txt') as unfinished:
        ...     _ = unfinished.write_text('all of it')
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f'.{os.getpid()}.{path.name}')
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
