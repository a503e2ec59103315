"""A workspace: a private view of a branch's head whose broken pages a commit makes durable.

Owns: the set of regions as they were changed since the base version, and moving that base. What
happens within a region is the business of `draft`; how pages are stored, that of `commit`.

- K1  A page is written to the arena if its contents differ from the base, and never otherwise.
- K4  Whatever fails, the workspace still holds its changes and stands on the same base.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np

from pagestore import kernel
from pagestore.commit import Committed, commit, differing
from pagestore.conflicts import check_conflicts
from pagestore.diff import page_count
from pagestore.draft import Draft
from pagestore.engine import Engine
from pagestore.errors import (
    BrokenError,
    CorruptionError,
    ExistsError,
    FullError,
    InvalidError,
    NotFoundError,
    PagestoreError,
    ReadOnlyError,
)
from pagestore.format import (
    BRANCH,
    Extents,
    RegionId,
    RegionRecord,
    VersionRecord,
    check_message,
    check_name,
    dtype_from_text,
    dtype_text,
)
from pagestore.history import Version
from pagestore.pagetable import Difference
from pagestore.placing import RegionChange
from pagestore.view import View, check_range
from pagestore.wiring import Wiring

MAX_PAGES = 1 << 40
CHECK_SECONDS = 0.05


class Workspace(View):
    """A transaction: plain NumPy arrays whose changes `commit` makes the branch's next version.

    As a context manager it commits on leaving the block and rolls back on an exception. Several
    threads may use one workspace, but none may write to its arrays while `commit`, `flush`,
    `rollback` or `refresh` runs. After a `fork` the child cannot use it.
    """

    def __init__(self, engine: Engine, branch: str, at: object = None) -> None:
        if not engine.writable:
            raise ReadOnlyError(f"{engine.path} is not writable")
        if at is not None:
            with engine.read() as (records, _):
                records.check_free(check_name(branch, "branch"))
        record, pin = engine.pin_branch(branch) if at is None else engine.pin(at)
        super().__init__(engine, record, pin)
        self.branch = branch
        self._new = at is not None  # the branch comes into being with the first commit
        self._lock = threading.RLock()
        _workspaces.add(self)
        self._drafts: dict[str, Draft] = {}
        self._deleted: dict[str, RegionRecord] = {}
        self._next_check = 0.0
        self._adopt(record)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and not self._closed:
                self.commit()
        finally:
            self.close()

    # --------------------------------------------------------------------------- the mapping

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        """Return a region as a writable array; it stays valid across commits.

        Raises
        ------
        NotFoundError
            There is no region of that name.
        """
        with self._lock:
            self._check()
            self._flush_if_large()
            return self._draft(name).array()

    def _regions(self) -> Mapping[str, RegionRecord]:
        self._check()
        return {name: draft.region for name, draft in self._drafts.items()}

    def _region(self, name: str) -> RegionRecord:
        return self._draft(name).region

    def _wiring(self, name: str) -> Wiring:
        return self._draft(name).wiring

    def _read(self, name: str, start: int, stop: int) -> bytes:
        with self._lock:
            return self._draft(name).read(start, stop)

    def _draft(self, name: str) -> Draft:
        self._check()
        try:
            return self._drafts[name]
        except (KeyError, TypeError):
            raise NotFoundError(f"there is no region {name!r} in this workspace") from None

    # ------------------------------------------------------------------------------ changing

    def create(
        self, name: str, shape: int | tuple[int, ...], dtype: Any = "u1"
    ) -> np.ndarray[Any, Any]:
        """Make a region of zeros and return it; pages that stay zeros take no space.

        Parameters
        ----------
        name : str
        shape : int or tuple of int
        dtype : dtype-like
            Anything without Python objects.

        Raises
        ------
        ExistsError
            There is a region of that name.
        InvalidError
            The name, shape or dtype cannot be stored.
        FullError
            No address space for it.
        """
        with self._lock:
            self._check()
            check_name(name, "region")
            if name in self._drafts:
                raise ExistsError(f"there is a region {name!r} already")
            region = RegionRecord(RegionId(0), name, _dtype(dtype), _shape(shape))
            self._check_size(region)
            draft = Draft(self._engine, self._anchor, region, None)
            array = draft.array()
            self._drafts[name] = draft
            return array

    def write(self, name: str, offset: int, data: Any) -> None:
        """Write bytes into a region; pages written only so need no search for changes.

        Parameters
        ----------
        name : str
        offset : int
            In bytes, from the region's start.
        data : bytes-like or ndarray
            An array is written as its bytes in C order.

        Raises
        ------
        InvalidError
            The range is not within the region, or `data` has no bytes.
        """
        with self._lock:
            self._check()
            self._flush_if_large()
            draft, raw = self._draft(name), _as_bytes(data)
            start, stop = check_range(draft.region, offset, len(raw))
            if stop > start:
                draft.write(start, raw)

    def resize(self, name: str, shape: int | tuple[int, ...]) -> np.ndarray[Any, Any]:
        """Give a region another shape, and return it; its bytes stay, in C order.

        Bytes that come anew are zeros. Arrays that were handed out keep the old shape: where both
        have a byte they show and change the same one; what an old array has beyond the new size
        is not stored any more.

        Raises
        ------
        InvalidError
            The shape is not one, or the region outgrew the addresses that were set aside for it
            while arrays still look into it: release them first.
        """
        with self._lock:
            draft = self._draft(name)
            region = draft.region._replace(shape=_shape(shape))
            self._check_size(region)
            _ = draft.wiring  # the array needs it: where there is no memory nothing has changed
            draft.resize(region)
            return draft.array()

    def truncate(self, name: str, size: int) -> None:
        """Give a region of plain bytes another size, as a file is cut or extended.

        Unlike `resize` it hands out no array: a commit searches nothing for changes.

        Raises
        ------
        InvalidError
            The region is an array, or the size is not one; or as for `resize`.
        """
        with self._lock:
            draft = self._draft(name)
            region = draft.region
            if region.dtype != np.uint8 or len(region.shape) != 1:
                raise InvalidError(f"region {name!r} is an array, not plain bytes: resize it")
            region = region._replace(shape=_shape((size,)))
            self._check_size(region)
            draft.resize(region)

    def delete(self, name: str) -> None:
        """Remove a region; arrays that were handed out keep showing what it held.

        Raises
        ------
        NotFoundError
            There is no region of that name.
        """
        with self._lock:
            draft = self._draft(name)
            draft.retire(self._record.id)
            if draft.base is not None:
                self._deleted[name] = draft.base
            del self._drafts[name]

    def _check_size(self, region: RegionRecord) -> None:
        if page_count(region, self._engine.page_size) > MAX_PAGES:
            raise InvalidError(f"region {region.name!r} would be larger than 2**40 pages")
        # NumPy counts an axis of length 0 as 1
        if math.prod(max(1, e) for e in region.shape) * region.dtype.itemsize >= 1 << 63:
            raise InvalidError(f"{region.shape} is too large")

    # ---------------------------------------------------------------------------- committing

    def commit(self, message: str = "") -> Version:
        """Make the changes durable, as the branch's next version, and return it.

        Without changes no version is made: the one that the workspace is based on is returned.

        Raises
        ------
        ConflictError
            Another writer changed a page that was changed here too.
        FullError
            No space; the workspace still holds the changes.
        BrokenError
            The disk failed; reopen the store to learn whether the version exists. Or there was no
            memory to go on from it: the message says which version exists; begin another workspace.
        """
        return self._commit(message, None)

    def snapshot(self, name: str, message: str = "") -> Version:
        """Commit, and name the version; both happen or neither.

        Raises
        ------
        ExistsError
            The name is taken; nothing was committed.
        """
        return self._commit(message, check_name(name, "snapshot"))

    def _commit(self, message: str, name: str | None) -> Version:
        check_message(message)
        with self._lock:
            self._check()
            changes = self._changes()
            if changes or self._deleted or self._new:
                done = commit(
                    self._engine, self.branch, self._record, changes, self._deleted,
                    message=message, name=name, new=self._new, then=self._go_on,
                )  # fmt: skip
                if done.made:
                    names = (self.branch,) if name is None else (self.branch, name)
                    return Version.of(done.version, names)
            elif name is not None:
                # nothing to store: the version at hand gets the name, wherever the branch went
                _, all_names = self._engine.name_version(self._record.id, name, message)
                return Version.of(self._record, all_names)
            return self.version

    def _changes(self) -> list[RegionChange]:
        collected = [draft.collect() for draft in self._drafts.values()]
        return [c for c in collected if c.is_change(self._engine.page_size)]

    def _go_on(self, done: Committed) -> None:
        """Stand on what was committed, or say that this workspace cannot."""
        if self._lost:
            return
        try:
            if self._new:
                with self._engine.read() as (records, _):
                    there = records.name(BRANCH, self.branch)
                self._new = there is None or there.version != done.version.id
            self._settle(done)
        except BaseException as e:
            self._lost = f"version {done.version.id} is committed, this workspace was left behind"
            self._anchor.keep(done.pin)
            if not isinstance(e, PagestoreError | MemoryError):
                raise
            raise BrokenError(f"{self._lost} ({e}): close it and begin another") from e

    def _settle(self, done: Committed) -> None:
        """Stand on the version that was committed; memory shows all but others' work already."""
        record = done.version
        for name, draft in self._drafts.items():
            region = record.regions.get(name)
            if region is not None and (draft.base is None or draft.base.id == region.id):
                draft.settle(region, self._anchor)  # any other was deleted by another writer
        self._take_over(done.theirs, record)
        self._deleted.clear()
        self._adopt(record)
        self._anchor.move(done.pin)
        if done.made:
            self._seen = done.transaction
        if self._is_large():
            for draft in self._drafts.values():
                draft.release()

    def _adopt(self, record: VersionRecord) -> None:
        """Let every region's base be what `record` has."""
        old, self._record = self._record, record
        for name in [n for n in self._drafts if n not in record.regions]:
            self._drafts.pop(name).retire(old.id)
        for name, region in record.regions.items():
            draft = self._drafts.get(name)
            if draft is not None and draft.region.id == region.id:
                if draft.base is not region:
                    draft.adopt(region, self._anchor)
                continue
            if draft is not None:
                draft.retire(old.id)
            self._drafts[name] = Draft(self._engine, self._anchor, region, region)

    # ------------------------------------------------------------------ other writers' work

    @property
    def current(self) -> bool:
        """Whether the base is the branch's head; next to free while nobody commits anything."""
        return self._at_head(self.branch)

    def _at_head(self, branch: str) -> bool:
        self._check()
        return self._new or super()._at_head(branch)

    def refresh(self) -> bool:
        """Move to the branch's head, keeping uncommitted changes.

        Returns
        -------
        bool
            Whether the head had moved.

        Raises
        ------
        ConflictError
            The head changed a page that was changed here too; nothing has moved.
        FullError
            A region that was changed here grew, there, beyond the addresses set aside for it:
            commit or roll back first; nothing has moved.
        """
        with self._lock:
            if self._at_head(self.branch):
                return False
            changes = self._changes()
            head, pin = self._engine.pin_branch(self.branch)
            try:
                with self._engine.read() as (records, nodes):
                    check_conflicts(
                        records, nodes, self._record, head, changes, self._deleted,
                        self._engine.page_size,
                    )  # fmt: skip
                    theirs = differing(records, nodes, self._record, head)
                self._check_room(changes, head)
            except BaseException:
                pin.release()
                raise
            try:
                self._take_over(theirs, head)
                self._rebase(head, changes)
            except BaseException:
                self._anchor.keep(pin)  # memory may show some of it
                raise
            self._anchor.move(pin)
            return True

    def _check_room(self, changes: list[RegionChange], head: VersionRecord) -> None:
        for change in changes:
            name = change.region.name
            pages = page_count(head.regions[name], self._page_size) if change.base else 0
            if not self._drafts[name].has_room(pages):
                raise FullError(
                    f"region {name!r} grew elsewhere beyond the addresses set aside for it here: "
                    "commit or roll back before refreshing"
                )

    def _take_over(self, theirs: dict[str, list[Difference]], head: VersionRecord) -> None:
        """Bring memory to what others committed; their pages and ours are disjoint."""
        for name, parts in theirs.items():
            draft = self._drafts.get(name)
            base = draft.base if draft is not None else None
            if draft is None or base is None or base.id != head.regions[name].id:
                continue  # deleted here, and perhaps created anew
            reshaped = base.shape != draft.region.shape
            pages = draft.pages if reshaped else page_count(head.regions[name], self._page_size)
            if not draft.take_over(Extents.join(p.news() for p in parts), pages):
                draft.retire(self._record.id)

    @property
    def _page_size(self) -> int:
        return self._engine.page_size

    def _rebase(self, head: VersionRecord, changes: list[RegionChange]) -> None:
        """Put the uncommitted changes on top of another base."""
        created = {n: d for n, d in self._drafts.items() if d.base is None}
        deleted, self._deleted = self._deleted, {}
        for name in created:
            del self._drafts[name]
        self._adopt(head)
        for name in deleted.keys() & head.regions.keys():
            self._drafts.pop(name).retire(head.id)
            self._deleted[name] = head.regions[name]
        self._drafts.update(created)
        for change in changes:
            if change.base is not None:
                draft = self._drafts[change.region.name]
                if change.kept < page_count(change.base, self._page_size):
                    draft.kept = change.kept
                if change.reshaped:
                    draft.region = draft.region._replace(shape=change.region.shape)

    # ------------------------------------------------------------------- going back, leaving

    def rollback(self) -> None:
        """Undo everything since the last commit; arrays show the base version again."""
        with self._lock:
            self._check()
            for name, draft in list(self._drafts.items()):
                if draft.base is None:
                    draft.retire(self._record.id)
                    del self._drafts[name]
                else:
                    draft.restore()
            for name, base in self._deleted.items():
                self._drafts[name] = Draft(self._engine, self._anchor, base, base)
            self._deleted.clear()

    def close(self) -> None:
        """End the workspace; changes that were not committed are dropped.

        Arrays that were handed out stay as they are.
        """
        with self._lock:
            self._drafts.clear()
            super().close()

    # ------------------------------------------------------------------ larger than memory

    def flush(self) -> None:
        """Write changed pages early and let go of their memory; the commit stays all or nothing.

        Raises
        ------
        FullError
            No space; the workspace still holds the changes.
        """
        with self._lock:
            self._check()
            for draft in self._drafts.values():
                draft.flush()

    def _flush_if_large(self) -> None:
        if self._is_large():
            pending = sum(draft.pending_bytes() for draft in self._drafts.values())
            if pending > self._engine.private_limit / 4:
                self.flush()

    def _is_large(self) -> bool:
        """Whether private memory takes more than its share; looked at now and then."""
        now = time.monotonic()
        if now < self._next_check:
            return False
        self._next_check = now + CHECK_SECONDS
        with contextlib.suppress(OSError):  # no descriptor left to look with
            return kernel.private_bytes() > self._engine.private_limit
        return False


_workspaces: weakref.WeakSet[Workspace] = weakref.WeakSet()


def _after_fork() -> None:
    # in the child everything raises, and must not wait for a thread that was left behind
    for workspace in list(_workspaces):
        workspace._lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)


def _dtype(dtype: Any) -> np.dtype[Any]:
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError) as e:
        raise InvalidError(f"{dtype!r} is not a dtype: {e}") from None
    if found.hasobject or found.kind == "T":
        raise InvalidError(f"dtype {found} holds Python objects, which cannot be stored")
    if found.itemsize == 0:
        raise InvalidError(f"dtype {found} has no size: say how long its items are")
    if found.subdtype is not None:
        raise InvalidError(f"dtype {found} is an array itself: give its shape with the region's")
    try:
        text = dtype_text(found)
        same = len(text) < 1 << 16 and dtype_from_text(text) == found
    except (ValueError, CorruptionError):
        same = False
    if not same:
        raise InvalidError(f"dtype {found} cannot be described in a file")
    return found


def _shape(shape: Any) -> tuple[int, ...]:
    sizes = shape if isinstance(shape, tuple | list) else (shape,)
    try:
        found = tuple(int(e.__index__()) for e in sizes)
    except (AttributeError, TypeError):
        raise InvalidError(f"{shape!r} is not a shape: integers are") from None
    if any(e < 0 for e in found) or len(found) > 64:
        raise InvalidError(f"{shape!r} is not a shape: sizes are from 0 on, at most 64 of them")
    if any(e >= 1 << 63 for e in found):
        raise InvalidError(f"{shape!r} is too large")
    return found


def _as_bytes(data: Any) -> np.ndarray[Any, Any]:
    if isinstance(data, np.ndarray):
        if data.dtype.hasobject:
            raise InvalidError("an array of Python objects has no bytes to write")
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    try:
        return np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)
    except (TypeError, ValueError, BufferError):
        raise InvalidError(f"{type(data).__name__} has no bytes to write") from None
