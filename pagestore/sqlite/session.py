"""What one SQLite connection sees of one branch, and the transaction that it has open there.

Owns: the view that all databases of a connection on a branch share, which of them is locked, and
when the view moves, commits or goes back. Does not know SQLite's file interface (`file`).

- Q1  What a database shows does not change while the connection holds a lock on it, but by its own
      writes: a view moves only when no database of the session is locked, and where a commit could
      move one that is, its write lock is held.
- Q2  A commit stores every database of the session that was written, or none; it never stores one
      whose transaction goes on.
- Q3  Who writes a database holds its write lock from the first change to the end of the
      transaction, and began from the branch's newest state of it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

import apsw

import pagestore
from pagestore.sqlite.locks import WriteLocks
from pagestore.sqlite.meaning import refused

if TYPE_CHECKING:
    from pagestore.sqlite.file import DatabaseFile

NONE, SHARED, RESERVED = apsw.SQLITE_LOCK_NONE, apsw.SQLITE_LOCK_SHARED, apsw.SQLITE_LOCK_RESERVED

View = pagestore.Workspace | pagestore.LiveView | pagestore.SnapshotView


class Session:
    """A connection on a branch of a store.

    Parameters
    ----------
    store : Store
        A handle of its own: closing the session closes it.
    branch : str
    at : str, optional
        A version to show instead of the branch's head: then nothing can be written.
    """

    view: View

    def __init__(self, store: pagestore.Store, branch: str, at: str | None) -> None:
        self.store = store
        self.members: list[DatabaseFile] = []
        self.connection = 0  # the address of SQLite's own object
        self.frozen = at is not None
        self.writing = False  # a transaction that writes is open
        self._locks = WriteLocks(store.path) if store.writable else None
        self.show(branch, at)

    def show(self, branch: str, at: str | None) -> None:
        """Show the head of a branch, and follow it, or show one version."""
        view: View
        if at is not None:
            view = self.store.view(at)
        elif self._locks is not None:
            view = self.store.begin(branch)
        else:
            view = self.store.live(branch)
        with contextlib.suppress(AttributeError):  # the first time there is none
            self.view.close()
        self.branch, self.at, self.view = branch, at, view
        self._moving = None if isinstance(view, pagestore.SnapshotView) else view
        for member in self.members:
            member.bind(moved=True)

    @property
    def level(self) -> int:
        """The highest lock of a member: a transaction is open, or one that writes."""
        return max([member.level for member in self.members])

    # --------------------------------------------------------------------------------- locks

    def lock(self, member: DatabaseFile, level: int) -> None:
        """Let a member have a lock; raise `apsw.BusyError` where another has what it takes."""
        if level >= RESERVED:
            if member.level < RESERVED:
                self._claim({m.name for m in self.members if m.level or m is member})
            self.writing = True
        elif self.writing:
            self._claim({member.name})  # or a commit might move it under its reader (Q1)
        elif self._moving is not None and not self._moving.current and not self.level:
            self.follow()
        member.level = level

    def follow(self) -> None:
        """Show the branch's newest version."""
        if self._moving is not None and self._moving.refresh():
            for member in self.members:
                member.bind(moved=True)

    def _claim(self, names: set[str]) -> None:
        """Take the write locks of some databases, none of which has a newer state (Q3)."""
        view = self.view
        if self._locks is None or not isinstance(view, pagestore.Workspace):
            raise apsw.ReadOnlyError(f"{self.store.path} is shown as it was, or opened read-only")
        new = self._locks.take(self.branch, names)
        if new is None:
            raise apsw.BusyError(f"another connection writes to {', '.join(sorted(names))}")
        stale = True
        try:
            stale = not view.current and self._changed(view, names)
        finally:
            if stale:
                self._locks.release(new)
        if stale:
            raise refused(apsw.SQLITE_BUSY_SNAPSHOT, "another connection has committed since")

    def _changed(self, view: pagestore.Workspace, names: Iterable[str]) -> bool:
        """Whether the branch's head has one of these databases otherwise than the view."""
        return any(c.region in names for c in self.store.diff(view.version, self.branch))

    def unlock(self, member: DatabaseFile, level: int) -> None:
        """Let a member go back to a lower lock; what it wrote and did not commit is undone."""
        ends = member.level >= RESERVED > level
        member.level = level
        if ends and self.level < RESERVED:
            self.writing = False
            if any(m.written for m in self.members):
                self.rollback()
            if self._locks is not None:
                self._locks.release()

    def reserved(self, member: DatabaseFile) -> bool:
        """Whether any connection is about to write to the member's database."""
        return self._locks is not None and self._locks.taken(self.branch, member.name)

    # -------------------------------------------------------------------------- transactions

    def commit(self, member: DatabaseFile) -> None:
        """Make what was written durable, as one version."""
        written = [m for m in self.members if m.written]
        if not written:
            return
        view = self.view
        assert isinstance(view, pagestore.Workspace)
        try:
            if not all(m.synced for m in written if m is not member):
                raise apsw.IOError("the same connection is in a transaction on another database")
            for m in written:
                m.flush()
            moves = not view.current  # to what others committed to other databases, then
            if moves and self._changed(view, [m.name for m in written]):
                raise apsw.IOError("somebody wrote to the database without its lock")
            view.commit()
        except BaseException:
            self.rollback()
            raise
        for m in self.members:
            if m in written:
                m.committed()
            elif moves:
                m.bind(moved=True)

    def rollback(self) -> None:
        """Forget what was written since the last commit."""
        if isinstance(self.view, pagestore.Workspace):
            for m in self.members:
                m.release()
            self.view.rollback()
        for m in self.members:
            m.bind()

    # ------------------------------------------------------------------------------- members

    def join(self, member: DatabaseFile, connection: int) -> Session:
        """Let a member be of the connection's session on the same branch, if there is one."""
        if self.connection:  # it is in one
            return self
        with _registry_lock:
            for other in tuple(_registry):
                if other.connection == connection and other._shows_as(self):
                    break
            else:
                self.connection = connection
                _registry.append(self)
                return self
        if any(m.name == member.name for m in other.members):  # attached twice: as to a stranger
            self.connection = connection
            return self
        if not other.level:
            other.follow()
        other.members.append(member)
        self.members.remove(member)
        self.close()
        return other

    def _shows_as(self, other: Session) -> bool:
        return self._shown() == other._shown()

    def _shown(self) -> tuple[object, ...]:
        return self.store.path, self.branch, self.at, self.frozen, self.store.writable

    def leave(self, member: DatabaseFile) -> None:
        """Part from a member; the last to go closes the session."""
        self.unlock(member, NONE)
        self.members.remove(member)
        if not self.members:
            with _registry_lock, contextlib.suppress(ValueError):
                _registry.remove(self)
            self.close()

    def close(self) -> None:
        """Let go of the view, the locks and the store."""
        self.view.close()
        if self._locks is not None:
            self._locks.close()
        self.store.close()


_registry: list[Session] = []
_registry_lock = threading.RLock()  # a connection can be closed by a finalizer of this thread
