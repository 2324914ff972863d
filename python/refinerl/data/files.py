"""Atomic writes of files: a file is written completely or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path` to write to; after the block, move that file to `path` atomically.

    The file is flushed to the disk before the move, so that a crash of the machine leaves the old file or the new one.
    If the block raises, `path` is unchanged. Processes may write to the same path at the same time; the last one wins.
    A process that is killed leaves its `.NAME.PID.partial` behind.

    Raises:
        OSError: the file cannot be written, such as a folder.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "numbers.txt"
    >>> with replacing(path) as partial:
    ...     _ = partial.write_text("1 2 3")
    >>> path.read_text(), [file.name for file in path.parent.iterdir()]
    ('1 2 3', ['numbers.txt'])
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        flush(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write(path: Path, text: str | Iterable[str]) -> None:
    """Replace the contents of `path` atomically by a text, or by its pieces in order, as UTF-8.

    A lone surrogate, which programs may contain and UTF-8 cannot encode, becomes an escape such as `\\udc80`.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as partial, partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines([text] if isinstance(text, str) else text)


def flush(path: Path) -> None:
    """Flush a file, or a folder's list of files, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
