"""A store from a stranger, looked at before anything of it is mapped.

Owns: which files may be opened at all, and in which order. What it says is true of the files as
they are then: whoever can write to them afterwards can undo it.
"""

from __future__ import annotations

import errno
import os
import stat

from pagestore import kernel
from pagestore.bounds import check_page_size
from pagestore.directory import ARENA, BALLAST, CATALOG, PINS, absolute
from pagestore.errors import CorruptionError, FormatError, InvalidError, NotFoundError
from pagestore.format import SUPERBLOCK_SIZE, Superblock
from pagestore.soundness import unsound

_NEEDED = (ARENA, CATALOG)
_OTHERS = (PINS, BALLAST, f"{CATALOG}-lock")
_LOOK = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO must not hold it up


def examine(path: str | os.PathLike[str]) -> None:
    """Verify the files of a store that comes from a stranger, without mapping any.

    Opening a store believes its catalog's seal, and LMDB believes its file. This believes neither:
    afterwards `open` can be called, and `Store.check(data=True)` says the rest. Nobody may write
    to the files from then on: examine a private copy. Costs time and memory in proportion to
    the catalog.

    Parameters
    ----------
    path : path-like

    Raises
    ------
    NotFoundError
        There is nothing.
    FormatError
        It is not a store, or not one of regular files in a real directory.
    CorruptionError
        Opening it could lead the process astray: what and where.
    """
    where = absolute(path)
    try:
        directory = os.open(where, _LOOK | os.O_DIRECTORY)
    except OSError as e:
        raise _refused(where, e) from e
    try:
        for name in (*_NEEDED, *_OTHERS):
            _check_file(where, directory, name)
        _check_arena(where, directory)
    finally:
        os.close(directory)
    file = os.path.join(where, CATALOG)
    fault = unsound(file)
    if fault:
        raise CorruptionError(f"{file}: damaged: {fault}")


def _check_file(where: str, directory: int, name: str) -> None:
    file = os.path.join(where, name)
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError as e:
        if e.errno == errno.ENOENT and name in _OTHERS:
            return
        raise _refused(file, e) from e
    if not stat.S_ISREG(status.st_mode):
        raise FormatError(f"{file} is not a regular file: a store holds no other")


def _check_arena(where: str, directory: int) -> None:
    file = os.path.join(where, ARENA)
    try:
        fd = os.open(ARENA, _LOOK, dir_fd=directory)
    except OSError as e:
        raise _refused(file, e) from e
    try:
        block = Superblock.unpack(os.pread(fd, SUPERBLOCK_SIZE, 0), file)
    finally:
        os.close(fd)
    check_page_size(block.page_size, file)
    if block.page_size < kernel.PAGE_SIZE:
        raise FormatError(f"{file} has smaller pages than this system")


def _refused(path: str, e: OSError) -> Exception:
    if e.errno == errno.ENOENT:
        return NotFoundError(f"there is no {path}")
    if e.errno in (errno.ELOOP, errno.ENOTDIR):
        return FormatError(f"{path} is a symbolic link, or not a directory of files")
    return InvalidError(f"{path}: {e.strerror or e}")
