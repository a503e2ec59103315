"""The public face: opening a store, its versions, names and views."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pagestore.directory import absolute
from pagestore.engine import Engine, attach
from pagestore.errors import InvalidError, NotFoundError, ReadOnlyError
from pagestore.format import (
    BRANCH,
    SNAPSHOT,
    NameRecord,
    VersionId,
    VersionRecord,
    check_message,
    check_name,
)
from pagestore.history import Version, nanoseconds
from pagestore.later import Later
from pagestore.reader import Reader, Ref, plain
from pagestore.reclaim import drop_unkept
from pagestore.view import LiveView, SnapshotView
from pagestore.workspace import Workspace

if TYPE_CHECKING:
    from pagestore import compact as _compact
    from pagestore.compact import Compaction
else:
    _compact = Later("pagestore.compact")

EXPIRED_AT_ONCE = 128  # versions: what the ballast is enough for on a full disk


def open(
    path: str | os.PathLike[str],
    mode: Literal["r", "r+", "a", "x"] = "a",
    *,
    page_size: int = 4096,
    history: Literal["named", "all"] = "named",
    tracking: Literal["auto", "userfault", "pagemap", "compare"] = "auto",
    mapping: Literal["auto", "portable"] = "auto",
    flush_share: float = 0.25,
) -> Store:
    """Open a store: a directory that holds every kept version of some named arrays.

    Opening the same store twice in a process shares it; the options of the first opening hold.

    Parameters
    ----------
    path : path-like
    mode : {"a", "r", "r+", "x"}
        ``"a"`` creates the store if it is missing, ``"x"`` insists on creating it, ``"r+"``
        insists that it exists, ``"r"`` also refuses every change.
    page_size : int
        Bytes a page, for a new store: a power of two from the system's page to 2 MiB.
    history : {"named", "all"}
        For a new store: ``"named"`` drops versions that nothing names, ``"all"`` keeps every
        commit until `Store.expire`.
    tracking : {"auto", "userfault", "pagemap", "compare"}
        How written pages are found; ``"auto"`` takes the best that this kernel offers.
    mapping : {"auto", "portable"}
        ``"portable"`` copies pages into memory instead of mapping them.
    flush_share : float
        Share of the machine's memory that private pages may take before a workspace writes early.

    Raises
    ------
    NotFoundError
        There is no store (modes ``"r"`` and ``"r+"``), or no directory to create it in.
    ExistsError
        Mode ``"x"``, and something is there.
    FormatError
        What is there is not a store, or one of a newer format.
    CorruptionError
        The store is damaged: what and where.
    ReadOnlyError
        No permission to write, in a mode that writes.
    InvalidError
        An option has no such value.
    """
    _check_options(mode, history, tracking, mapping, flush_share)
    engine = attach(
        absolute(path),
        mode,
        page_size=page_size,
        keep_all=history == "all",
        tracking=tracking,
        mapping=mapping,
        flush_share=flush_share,
    )
    return Store(engine, writable=mode != "r")


def _check_options(
    mode: str, history: str, tracking: str, mapping: str, flush_share: float
) -> None:
    for what, value, known in (
        ("mode", mode, ("r", "r+", "a", "x")),
        ("history", history, ("named", "all")),
        ("tracking", tracking, ("auto", "userfault", "pagemap", "compare")),
        ("mapping", mapping, ("auto", "portable")),
    ):
        if value not in known:
            raise InvalidError(f"{what} must be one of {', '.join(known)}, not {value!r}")
    if not isinstance(flush_share, int | float) or not 0 < flush_share <= 1:
        raise InvalidError(f"flush_share must be a share of memory in (0, 1], not {flush_share!r}")


class Store(Reader):
    """A handle on an open store; made by `pagestore.open`. Safe to share between threads."""

    def __init__(self, engine: Engine, *, writable: bool) -> None:
        super().__init__(engine)
        self._writable = writable

    def _for_change(self) -> Engine:
        engine = self._engine
        if not self._writable:
            raise ReadOnlyError(f"the store {engine.path} was opened with mode 'r'")
        return engine

    @property
    def writable(self) -> bool:
        """Whether this handle may change the store."""
        return self._writable and self._engine.writable

    # --------------------------------------------------------------------------------- views

    def begin(self, branch: str = "main", *, at: Ref | None = None) -> Workspace:
        """Start a workspace on a branch's head.

        Parameters
        ----------
        branch : str
        at : Ref, optional
            Start a new branch at this version. It comes into being with the first commit, which
            costs no more than any other.

        Raises
        ------
        NotFoundError
            There is no such branch, or version.
        ExistsError
            The branch is to be new, and there is a snapshot or branch of that name.
        ReadOnlyError
            The store was opened with mode ``"r"``.
        """
        return Workspace(self._for_change(), branch, plain(at))

    def view(self, ref: Ref) -> SnapshotView:
        """Open a version as private scratch memory.

        Raises
        ------
        NotFoundError
            There is no such version.
        """
        engine = self._engine
        return SnapshotView(engine, *engine.pin(plain(ref)))

    def live(self, branch: str = "main") -> LiveView:
        """Open the head of a branch as shared, read-only memory that can follow it.

        Raises
        ------
        NotFoundError
            There is no such branch.
        """
        return LiveView(self._engine, branch)

    # --------------------------------------------------------------------------------- names

    def snapshot(self, name: str, *, at: Ref = "main", message: str = "") -> Version:
        """Name a version, and so keep it. O(1), durable.

        Raises
        ------
        ExistsError
            There is a snapshot or branch of that name.
        NotFoundError
            There is no such version.
        InvalidError
            The name cannot be one.
        """
        check_name(name, "snapshot")
        check_message(message)
        record, names = self._for_change().name_version(plain(at), name, message)
        return Version.of(record, names, message)

    def create_branch(self, name: str, *, at: Ref = "main") -> Version:
        """Start a new line of work at a version; errors as for `snapshot`."""
        check_name(name, "branch")
        with self._for_change().write() as write:
            records = write.records
            record = records.resolve(plain(at))
            records.check_free(name)
            records.put_name(BRANCH, name, NameRecord(record.id, record.time))
        return self._version(record)

    def delete_snapshot(self, name: str, *more: str) -> None:
        """Forget one snapshot or several, all or none; what only they kept is free at once.

        Costs what they changed, and one durable transaction for all of them.

        Raises
        ------
        NotFoundError
            There is no snapshot of one of the names.
        """
        self._delete(SNAPSHOT, (name, *more))

    def delete_branch(self, name: str) -> None:
        """Forget a branch, and what only it kept.

        Raises
        ------
        NotFoundError
            There is no branch of that name.
        InvalidError
            It is ``"main"``, which every store has.
        """
        if name == "main":
            raise InvalidError("the branch 'main' cannot be deleted")
        self._delete(BRANCH, [name])

    def _delete(self, kind: bytes, names: Iterable[str]) -> None:
        engine = self._for_change()
        checked = dict.fromkeys([check_name(name, "deleted") for name in names])
        with engine.write(spare=True) as write:
            drop_unkept(engine, write, [write.records.remove_name(kind, n) for n in checked])

    def expire(self, before: datetime) -> int:
        """Drop the unnamed versions of ``history="all"`` that were committed before a time.

        Goes by transactions of some versions each: what an interruption leaves is dropped by the
        next call.

        Returns
        -------
        int
            How many versions were dropped.

        Raises
        ------
        InvalidError
            The time is not aware of its zone.
        """
        if not isinstance(before, datetime) or before.tzinfo is None:
            raise InvalidError("expire takes an aware datetime, such as datetime.now(UTC)")
        limit = nanoseconds(before)
        engine = self._for_change()
        with engine.read() as (records, _):
            old = [r.id for r in records.versions() if r.keep and r.time < limit]
        return sum(
            _expire(engine, old[i : i + EXPIRED_AT_ONCE])
            for i in range(0, max(len(old), 1), EXPIRED_AT_ONCE)  # what was pinned may go too
        )

    def _version(self, record: VersionRecord, message: str = "") -> Version:
        with self._engine.read() as (records, _):
            names = [name for _, name in records.names_of(record.id)]
        return Version.of(record, names, message)

    # --------------------------------------------------------------------------------- upkeep

    def compact(self, progress: Callable[[int, int], None] | None = None) -> Compaction:
        """Gather pages so that branches lie in long runs, and give free space back to the disk.

        Pages of versions that somebody looks at stay where they are. The catalog's free space is
        given back when the store is closed, by the last who has it open.

        Parameters
        ----------
        progress : callable, optional
            Called with pages done and pages to do.
        """
        return _compact.compact(self._for_change(), progress)


def _expire(engine: Engine, old: list[VersionId]) -> int:
    """Take the marks of ``history="all"`` from some versions, and drop what that leaves unkept."""
    with engine.write(spare=True) as write:
        for version in old:
            with contextlib.suppress(NotFoundError):
                record = write.records.version(version)
                write.records.put_version(record._replace(keep=False))
        return drop_unkept(engine, write, old)
