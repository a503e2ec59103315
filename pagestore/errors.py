"""Every exception that pagestore raises on purpose, grouped by what the caller can do about it.

Owns the tree and nothing else. Where an error has a kind that Python knows (a missing key, a bad
value, a failed system call), it is of that class too, so that ordinary handlers catch it.
"""

from __future__ import annotations

import errno


class PagestoreError(Exception):
    """Catch this to catch everything below."""


class NotFoundError(PagestoreError, KeyError):
    """There is no such version, name or region: ask for another, or create it."""

    def __str__(self) -> str:
        # KeyError would show the repr of the message.
        return Exception.__str__(self)


class ExistsError(PagestoreError):
    """The name is taken: choose another, or delete what has it."""


class InvalidError(PagestoreError, ValueError):
    """The argument can never work: correct the call."""


class ConflictError(PagestoreError):
    """Someone else changed the same page first: roll back, refresh, redo the change, commit."""


class ReadOnlyError(PagestoreError):
    """What was opened for reading cannot be changed: open it for writing."""


class ClosedError(PagestoreError):
    """The object was closed, or belongs to the process this one was forked from: open it anew."""


class CorruptionError(PagestoreError):
    """The stored bytes are not what was committed: restore what the message names from a copy."""


class FormatError(PagestoreError):
    """Not a store, or one of a newer format: check the path, or upgrade pagestore."""


class FullError(PagestoreError, OSError):
    """No space left and nothing lost: free some space, then do the same again."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.ENOSPC, message)

    def __str__(self) -> str:
        return str(self.strerror)

    def __reduce__(self) -> tuple[type[FullError], tuple[str]]:
        return type(self), (str(self),)


class BrokenError(PagestoreError):
    """A failed write or sync left the disk's state unknown: close, reopen, look at the head."""
