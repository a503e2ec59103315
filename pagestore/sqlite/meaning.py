"""What an error of pagestore says to SQLite, and to who uses SQLite."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

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


def meaning(e: Exception) -> apsw.Error:
    """The exception of apsw for one of pagestore."""
    if isinstance(e, apsw.Error):
        return e
    return next(theirs for ours, theirs in _CLASSES if isinstance(e, ours))(str(e))


def translated(method: Callable[P, R]) -> Callable[P, R]:
    """Let a method raise what SQLite understands."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except apsw.Error:
            raise
        except Exception as e:
            raise meaning(e) from e

    return call


def refused(code: int, message: str) -> apsw.Error:
    """The exception of apsw for an extended result code."""
    error: Any = type(apsw.exception_for(code))(message)
    error.result, error.extendedresult = code & 0xFF, code
    assert isinstance(error, apsw.Error)
    return error
