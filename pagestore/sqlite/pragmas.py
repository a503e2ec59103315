"""Version control from SQL: the PRAGMAs that a database in a store understands.

Owns: their names and what they answer. Each answers one row of text; lists are lines, and what is
in a line is separated by tabs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import apsw

import pagestore
from pagestore.sqlite.meaning import raise_translated
from pagestore.sqlite.session import Session

PREFIX = "pagestore_"


def answer(session: Session, pragma: apsw.VFSFcntlPragma) -> bool:
    """Do what a PRAGMA says, if it is one of these; whether it was."""
    name = pragma.name.lower()
    if name == "journal_mode" and pragma.value is not None:
        pragma.result = (
            "memory"  # as for a database in memory; without one statements are not undone
        )
        return True
    if not name.startswith(PREFIX):
        return False
    try:
        pragma.result = _handler(name)(session, pragma.value)
    except Exception as e:
        raise_translated(e)
    return True


def _handler(name: str) -> Callable[[Session, str | None], str]:
    try:
        return _HANDLERS[name.removeprefix(PREFIX)]
    except KeyError:
        known = ", ".join(PREFIX + n for n in _HANDLERS)
        raise apsw.SQLError(f"there is no PRAGMA {name}; there are {known}") from None


def _at(session: Session, value: str | None) -> str:
    """``='REF'``: show that version, read only. ``=''``: follow the branch again."""
    if value is not None:
        _check_free(session)
        session.show(session.branch, value or None)
    return str(session.view.version.id)


def _branch(session: Session, value: str | None) -> str:
    """``='NAME'``: go on on that branch; it is made from what is shown, if it is new."""
    if value is not None:
        _check_free(session)
        if value not in session.store.branches:
            session.store.create_branch(value, at=_shown(session))
        session.show(value, None)
    return session.branch


def _snapshot(session: Session, value: str | None) -> str:
    """``='NAME'``: name what is shown; all that was committed, unless a transaction is open."""
    if value is None:
        return _snapshots(session, None)
    if session.writing:
        raise apsw.BusyError("a transaction is open: commit it, then take the snapshot")
    return str(session.store.snapshot(value, at=_shown(session)).id)


def _snapshots(session: Session, _: str | None) -> str:
    return _lines((name, v.id, _time(v)) for name, v in sorted(session.store.snapshots.items()))


def _branches(session: Session, _: str | None) -> str:
    return _lines((name, v.id, _time(v)) for name, v in sorted(session.store.branches.items()))


def _log(session: Session, value: str | None) -> str:
    """The versions of a ref, or of what is shown, newest first."""
    log = session.store.log(value or _shown(session))
    return _lines((v.id, _time(v), ",".join(v.names), v.message) for v in log)


def _diff(session: Session, value: str | None) -> str:
    """``='A'`` or ``='A..B'``: which pages of which database differ; B is what is shown."""
    if not value:
        raise apsw.SQLError("PRAGMA pagestore_diff takes a version, or two: 'A..B'")
    old, _, new = value.partition("..")
    changes = session.store.diff(old, new or _shown(session))
    return _lines((c.region, c.start, c.stop) for c in changes)


def _shown(session: Session) -> pagestore.Version:
    """The version that the next transaction begins from."""
    if not session.level:
        session.follow()
    return session.view.version


def _check_free(session: Session) -> None:
    if session.level:
        raise apsw.BusyError("a transaction is open: end it first")
    if session.frozen:
        raise apsw.ReadOnlyError("this connection was opened at a version, and stays there")


def _lines(rows: Iterable[tuple[object, ...]]) -> str:
    return "\n".join("\t".join(str(column) for column in row) for row in rows)


def _time(version: pagestore.Version) -> str:
    return version.time.isoformat(sep=" ", timespec="seconds")


_HANDLERS: dict[str, Callable[[Session, str | None], str]] = {
    "at": _at,
    "branch": _branch,
    "branches": _branches,
    "diff": _diff,
    "log": _log,
    "snapshot": _snapshot,
    "snapshots": _snapshots,
}
