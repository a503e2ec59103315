"""The directory of a store: the names of its files, making it, and what refusals of it mean.

Owns: paths, and the order of steps in which a store comes to be. Does not know an open store.

- E1  A store is created whole in a temporary directory, synced, and renamed into place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time

from pagestore import kernel
from pagestore.arena import Arena
from pagestore.catalog import Catalog
from pagestore.errors import (
    BrokenError,
    CorruptionError,
    FullError,
    InvalidError,
    NotFoundError,
    PagestoreError,
    ReadOnlyError,
)
from pagestore.format import (
    BRANCH,
    MAX_PAGE,
    NO_VERSION,
    ROOT_VERSION,
    Meta,
    NameRecord,
    Superblock,
    VersionRecord,
)

ARENA, CATALOG, PINS, BALLAST = "arena", "catalog", "pins", "ballast"
COPY = "catalog.dense"  # of the catalog, until it takes its place


def absolute(path: str | os.PathLike[str]) -> str:
    """An absolute path without empty parts; ``..`` stays, for what precedes it may be a link."""
    where: object = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(where, str):
        raise InvalidError(f"a store's path is a path, not {type(path).__name__}")
    if "\0" in where:
        raise InvalidError(f"{where!r} cannot be a path")
    parts = where.split("/") if where.startswith("/") else f"{os.getcwd()}/{where}".split("/")
    return "/" + "/".join(part for part in parts if part not in ("", "."))


def has_content(path: str) -> bool:
    """Whether something is there that must not be overwritten."""
    if not os.path.lexists(path):
        return False
    return not is_directory(path) or bool(os.listdir(path))


def is_directory(path: str) -> bool:
    """As `os.path.isdir`; but not to be allowed to look is an error, not a no."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise


def create(path: str, page_size: int, keep_all: bool) -> None:
    """Make an empty store at `path`, whole or not at all (E1)."""
    least = kernel.PAGE_SIZE
    if (
        not isinstance(page_size, int)
        or page_size & (page_size - 1)
        or not least <= page_size <= MAX_PAGE
    ):
        raise InvalidError(
            f"page_size must be a power of two from {least} to {MAX_PAGE}, not {page_size!r}"
        )
    parent, name = os.path.split(path)
    if not is_directory(parent):
        raise NotFoundError(f"cannot create {path}: there is no directory {parent}")
    temporary = os.path.join(parent, f".{name}.{os.urandom(6).hex()}")
    try:
        os.mkdir(temporary)
        _fill(temporary, page_size, keep_all)
        try:
            os.rename(temporary, path)
        except OSError as e:
            if not has_content(path):  # otherwise somebody else made it first: use theirs
                raise refused(path, e) from e
        kernel.sync(parent)
    except OSError as e:
        raise refused(path, e) from e
    finally:
        _remove(temporary)


def _remove(path: str) -> None:
    """Take away a directory of files, if it is there."""
    with contextlib.suppress(OSError):
        for name in os.listdir(path):
            os.unlink(os.path.join(path, name))
        os.rmdir(path)


def _fill(path: str, page_size: int, keep_all: bool) -> None:
    now = time.time_ns()
    store_id = os.urandom(16)
    # the transaction that makes the catalog is LMDB's first
    meta = Meta(store_id, page_size, keep_all, next_version=ROOT_VERSION + 1, transaction=1)
    root = VersionRecord(ROOT_VERSION, NO_VERSION, now, keep_all, "", {})
    file = os.path.join(path, CATALOG)
    Arena.create(os.path.join(path, ARENA), Superblock(page_size, store_id, now))
    Catalog.create(file, meta)
    catalog = Catalog(file, writable=True)
    try:
        with catalog.write() as records:
            records.add_version(root)
            records.put_name(BRANCH, "main", NameRecord(ROOT_VERSION, now))
    finally:
        catalog.close()
    os.close(os.open(os.path.join(path, PINS), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
    for name in (CATALOG, PINS, ""):
        kernel.sync(os.path.join(path, name))


_PASSING = kernel.NO_SPACE | {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_WRONG = {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EINVAL}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def refused(path: str, e: OSError) -> PagestoreError:
    """What the caller can do about a refusal of the file system."""
    if isinstance(e, PagestoreError):
        return e
    what = f"{path}: {e.strerror or e}"
    if e.errno in _PASSING:
        return FullError(what)
    if e.errno in _WRONG:
        return InvalidError(what)
    if e.errno == errno.EISDIR:
        return CorruptionError(what)
    return ReadOnlyError(what) if e.errno in _FORBIDDEN else BrokenError(what)
