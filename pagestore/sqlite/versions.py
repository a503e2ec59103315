"""The PRAGMAs of a connection, as functions."""

from __future__ import annotations

import apsw

import pagestore


def snapshot(connection: apsw.Connection, name: str, *, schema: str = "main") -> int:
    """Name what a connection sees, committed as it is; return the version's id.

    Raises
    ------
    apsw.BusyError
        The connection is in a transaction that writes.
    apsw.SQLError
        The name is taken, or cannot be one.
    """
    return int(_ask(connection, "snapshot", name, schema))


def branch(connection: apsw.Connection, name: str | None = None, *, schema: str = "main") -> str:
    """Go on on another branch, which begins with what is seen if it is new; return its name.

    Databases of the same store and branch go with it.

    Raises
    ------
    apsw.BusyError
        The connection is in a transaction.
    """
    return _ask(connection, "branch", name, schema)


def at(
    connection: apsw.Connection,
    ref: str | int | pagestore.Version | None,
    *,
    schema: str = "main",
) -> int:
    """Show a version, read only; None: follow the branch again. Return the version's id.

    Raises
    ------
    apsw.BusyError
        The connection is in a transaction.
    apsw.CantOpenError
        There is no such version.
    """
    text = ref.id if isinstance(ref, pagestore.Version) else ref
    return int(_ask(connection, "at", "" if text is None else str(text), schema))


def _ask(connection: apsw.Connection, what: str, value: str | None, schema: str) -> str:
    values = () if value is None else (value,)
    return str(connection.pragma(f"pagestore_{what}", *values, schema=schema))
