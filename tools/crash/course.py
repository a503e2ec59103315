"""One run of a workload: each step is done to a store and to the model of it, then acknowledged.

A *step* is what may fail and is durable when it returns. Writing to memory is not one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import pagestore
from pagestore import FullError
from tools.crash.ledger import NO_STORE, Contents, Ledger, digest, survey

PAGE = 4096
Pages = slice | Sequence[int]
T = TypeVar("T")


def pattern(value: int, pages: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Bytes for some pages: other ones in every sector for another value."""
    offsets = np.arange(PAGE, dtype=np.int64)
    numbers: np.ndarray[Any, Any] = offsets[None, :] + 13 * pages[:, None] + 57 * value
    return (numbers % 251).astype(np.uint8)


class Course:
    """A store, a workspace on one of its branches, and what both must hold.

    Parameters
    ----------
    path : Path
    mark : callable
        Called with the text of a `Known` after every step.
    make_room : callable
        Called when a step found the disk full; the step is then tried again.
    """

    def __init__(
        self,
        path: Path,
        mark: Callable[[str], None],
        make_room: Callable[[], None],
        **options: Any,
    ) -> None:
        self.path = path
        self.options = options
        self.ledger = Ledger()
        self.branch = "main"
        self.now: dict[str, np.ndarray[Any, Any]] = {}
        self._mark = mark
        self._make_room = make_room
        self.full = 0
        self.other: Any = None
        self._views: list[tuple[pagestore.SnapshotView, str]] = []

    def _step(self, work: Callable[[], T], effect: Callable[[T], object]) -> T:
        try:
            result = work()
        except FullError:
            self.full += 1
            self._make_room()
            result = work()  # nothing was lost: the same again
        effect(result)
        self._look_again()
        self._mark(self.ledger.known().dump())
        return result

    # ------------------------------------------------------------------------ opening, closing

    def open(self, *, create: bool = False) -> None:
        """Open the store, and begin a workspace on the branch."""
        if create:
            self._mark(NO_STORE)

        def opened(store: pagestore.Store) -> None:
            if create:
                self.ledger.begin(store.version("main").id)

        self.store = self._step(lambda: pagestore.open(self.path, **self.options), opened)
        self.begin(self.branch)

    def begin(self, branch: str) -> None:
        """Leave the workspace, uncommitted changes lost, for one on a branch."""
        self.branch = branch
        self.ws = self.store.begin(branch)
        self.now = self._head(branch)

    def _head(self, branch: str) -> dict[str, np.ndarray[Any, Any]]:
        contents = self.ledger.contents[self.ledger.names[f"branch {branch}"]]
        return {name: array.copy() for name, array in contents.items()}

    def switch(self, branch: str) -> None:
        self.ws.close()
        self.begin(branch)

    def close(self) -> None:
        self.ws.close()
        self._step(self.store.close, lambda _: None)

    def reopen(self) -> None:
        self.close()
        self.open()

    def adopt(self) -> None:
        """Open a store that is there, and believe what it says: others have judged it."""

        def opened(store: pagestore.Store) -> None:
            found = survey(store)
            versions = [store.version(version) for version in found.versions]
            contents: dict[int, Contents] = {}
            for version in versions:
                with store.view(version) as view:
                    contents[version.id] = {name: array.copy() for name, array in view.items()}
            parents = {version.id: version.parent or 0 for version in versions}
            self.ledger = Ledger(names=found.names, parents=parents, contents=contents)

        self.store = self._step(lambda: pagestore.open(self.path, "r+", **self.options), opened)
        self.begin(self.branch)
        if "a" not in self.now:
            self.create("a", 4)

    def watch(self, ref: str) -> None:
        """Hold a view from now on; what it shows must stay as it is."""
        view = self.store.view(ref)
        self._views.append((view, digest(self.ledger.contents[view.version.id])))

    def unwatch(self) -> None:
        self._views.clear()

    def _look_again(self) -> None:
        for view, before in self._views:
            if digest(view) != before:
                raise AssertionError(f"a view of version {view.version.id} has changed")

    # ------------------------------------------------------------------------------ in memory

    def create(self, name: str, pages: int) -> None:
        self.ws.create(name, (pages, PAGE))
        self.now[name] = np.zeros((pages, PAGE), np.uint8)

    def write(self, name: str, pages: Pages, value: int) -> None:
        numbers = np.arange(len(self.now[name]))[pages]
        data = pattern(value, numbers)
        self.ws[name][numbers] = data
        self.now[name][numbers] = data

    def zero(self, name: str, pages: Pages) -> None:
        self.ws[name][pages] = 0
        self.now[name][pages] = 0

    def resize(self, name: str, pages: int) -> None:
        self.ws.resize(name, (pages, PAGE))
        old = self.now[name][:pages]
        self.now[name] = np.concatenate((old, np.zeros((pages - len(old), PAGE), np.uint8)))

    def remove(self, name: str) -> None:
        self.ws.delete(name)
        del self.now[name]

    # ---------------------------------------------------------------------------------- steps

    def _committed(self, version: pagestore.Version) -> None:
        if self.options.get("history") == "all":
            self.ledger.marked.add(version.id)
        self.ledger.committed(self.branch, version.id, self.now)

    def commit(self) -> None:
        self._step(self.ws.commit, self._committed)

    def commit_named(self, name: str) -> None:
        def named(version: pagestore.Version) -> None:
            self._committed(version)
            self.ledger.names[f"snapshot {name}"] = version.id

        self._step(lambda: self.ws.snapshot(name), named)

    def snapshot(self, name: str, at: str = "main") -> None:
        def named(version: pagestore.Version) -> None:
            self.ledger.names[f"snapshot {name}"] = version.id

        self._step(lambda: self.store.snapshot(name, at=at), named)

    def create_branch(self, name: str, at: str) -> None:
        def named(version: pagestore.Version) -> None:
            self.ledger.names[f"branch {name}"] = version.id

        self._step(lambda: self.store.create_branch(name, at=at), named)

    def _forgotten(self, *names: str) -> Callable[[object], None]:
        def forgotten(_: object) -> None:
            for name in names:
                del self.ledger.names[name]
            self.ledger.drop()

        return forgotten

    def delete_snapshot(self, *names: str) -> None:
        forgotten = self._forgotten(*(f"snapshot {name}" for name in names))
        self._step(lambda: self.store.delete_snapshot(*names), forgotten)

    def delete_branch(self, name: str) -> None:
        self._step(lambda: self.store.delete_branch(name), self._forgotten(f"branch {name}"))

    def expire(self) -> None:
        def expired(_: int) -> None:
            self.ledger.marked.clear()
            self.ledger.drop()

        self._step(lambda: self.store.expire(datetime.now(UTC)), expired)

    def compact(self) -> None:
        """Compact as a program would: with no memory wired to the versions."""
        self.ws.close()
        self._step(self.store.compact, lambda _: None)
        self.begin(self.branch)

    def flush(self) -> None:
        self._step(self.ws.flush, lambda _: None)

    # ------------------------------------------------------------------------- another process

    def start_other(self) -> None:
        """Fork a second writer; before the store is opened here."""
        self.other = _Other(self.path, self.options)

    def other_commits(self, branch: str, name: str, page: int, value: int) -> None:
        """Let the other process change a page of a branch's head, and commit that."""

        def committed(version: int) -> None:
            contents = self._head(branch)
            contents[name][page] = pattern(value, np.array([page]))[0]
            self.ledger.committed(branch, version, contents)
            if branch == self.branch:
                self.now[name][page] = contents[name][page]

        self._step(lambda: self.other.commit(branch, name, page, value), committed)

    def other_ends(self) -> None:
        self.other.end()


class _Other:
    """A forked process that commits when it is told to."""

    def __init__(self, path: Path, options: dict[str, Any]) -> None:
        import multiprocessing

        self._pipe, theirs = multiprocessing.Pipe()
        self._pid = os.fork()
        if not self._pid:
            try:
                self._pipe.close()
                self._obey(theirs, path, options)
            finally:
                os._exit(0)
        theirs.close()

    @staticmethod
    def _obey(pipe: Any, path: Path, options: dict[str, Any]) -> None:
        store = None
        while (order := pipe.recv()) is not None:
            branch, name, page, value = order
            store = store or pagestore.open(path, **options)
            with store.begin(branch) as ws:
                ws[name][page] = pattern(value, np.array([page]))[0]
                version = ws.commit()
            pipe.send(version.id)
        if store:
            store.close()
        pipe.send(0)

    def commit(self, branch: str, name: str, page: int, value: int) -> int:
        self._pipe.send((branch, name, page, value))
        return int(self._pipe.recv())

    def end(self) -> None:
        self._pipe.send(None)
        self._pipe.recv()
        os.waitpid(self._pid, 0)
