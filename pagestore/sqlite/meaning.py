"""What an error of pagestore says to SQLite, and to who uses SQLite."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NoReturn, ParamSpec, TypeVar

import apsw

import pagestore

P = ParamSpec("P")
R = TypeVar("R")

_CLASSES: tuple[tuple[type[Exception], type[apsw.Error]], ...] = (
    (pagestore.FullError, apsw.FullError),
    (MemoryError, apsw.NoMemError),
    (pagestore.ReadOnlyError, apsw.ReadOnlyError),
    (pagestore.CorruptionError, apsw.CorruptError),
    (pagestore.FormatError, apsw.CantOpenError),
    (pagestore.NotFoundError, apsw.CantOpenError),
    (pagestore.InvalidError, apsw.SQLError),
    (pagestore.ExistsError, apsw.SQLError),
    (Exception, apsw.IOError),
)
_CODES = {type(apsw.exception_for(code)): code for code in range(1, 27)}


def translated(method: Callable[P, R]) -> Callable[P, R]:
    """Let a method raise what SQLite understands."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except Exception as e:
            raise_translated(e)

    return call


def raise_translated(e: Exception) -> NoReturn:
    """Raise the exception of apsw for one of pagestore; with SQLite's code, as apsw's own have."""
    try:
        if isinstance(e, apsw.Error):
            if not hasattr(e, "result"):
                _set_code(e, _CODES.get(type(e), apsw.SQLITE_ERROR))
            raise e
        theirs = next(theirs for ours, theirs in _CLASSES if isinstance(e, ours))
        raise refused(_CODES[theirs], str(e)) from e
    finally:
        del e  # or it would keep this frame, which keeps it, and with it the caller's connections


def refused(code: int, message: str) -> apsw.Error:
    """The exception of apsw for a result code."""
    error = type(apsw.exception_for(code))(message)
    assert isinstance(error, apsw.Error)
    _set_code(error, code)
    return error


def _set_code(error: Any, code: int) -> None:
    error.result, error.extendedresult = code & 0xFF, code
