"""Write files whole."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Let a file appear when all of it is written.

    Args:
        path: The file. Its folder is made where there is none.

    Yields:
        A path with the same name in a hidden folder beside it, to be written. When the block ends the file takes its place; when the block
        raises, it is removed.
    """
    path = Path(path).resolve()  # of a link, what it leads to
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='.', dir=path.parent) as folder:
        unfinished = Path(folder, path.name)
        yield unfinished
        unfinished.replace(path)
