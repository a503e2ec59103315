"""A version seen as memory: snapshot views (private scratch) and live views (shared, read-only).

Owns: the mapping from region names to arrays, and the life of a view. Arrays outlive `close()`,
unchanged, and keep the version pinned until the last of them is gone.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from pagestore import kernel
from pagestore.diff import last_common, moved_pages, page_count
from pagestore.direct import Direct
from pagestore.engine import Engine
from pagestore.errors import (
    BrokenError,
    ClosedError,
    CorruptionError,
    InvalidError,
    NotFoundError,
    PagestoreError,
)
from pagestore.format import (
    NO_VERSION,
    Extents,
    IntArray,
    RegionRecord,
    VersionId,
    VersionRecord,
)
from pagestore.history import Region, Version, region_table
from pagestore.later import Later
from pagestore.pagetable import count, extents, lookup
from pagestore.pins import Pin
from pagestore.wiring import Anchor, Wiring

if TYPE_CHECKING:
    from pagestore import notebook as _notebook
else:
    _notebook = Later("pagestore.notebook")


class View(Mapping[str, Any]):
    """A read-only mapping from region names to arrays of one version.

    Arrays are wired when first asked for: opening a view costs nothing per region or page.
    """

    _writable = False
    _shared = False
    _growable = False

    def __init__(self, engine: Engine, record: VersionRecord, pin: Pin) -> None:
        self._engine = engine
        self._record = record
        self._anchor = Anchor(pin)
        self._wirings: dict[str, Wiring] = {}
        self._directs: dict[str, Direct] = {}
        self._closed = False
        self._lost = ""  # why a workspace cannot go on
        self._seen = -1  # the transaction in which the version was last seen to be a branch's head

    # ------------------------------------------------------------------------------- mapping

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        """Return a region as an array.

        Raises
        ------
        NotFoundError
            The version has no region of that name.
        ClosedError
            The view or its store is closed, or this is a forked child.
        """
        region = self._region(name)
        array: np.ndarray[Any, Any] = self._wiring(name).array(
            region.dtype, region.shape, writable=self._writable
        )
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._regions()))

    def __len__(self) -> int:
        return len(self._regions())

    def __contains__(self, name: object) -> bool:
        return name in self._regions()

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"version {self._record.id}"
        return f"<{type(self).__name__} of {self._engine.path}, {state}>"

    def _repr_html_(self) -> str:
        try:
            return _notebook.line(repr(self)) + region_table(self.regions)
        except PagestoreError:  # closed
            return _notebook.line(repr(self))

    # -------------------------------------------------------------------------------- public

    @property
    def version(self) -> Version:
        """The version that the view shows."""
        self._check()
        with self._engine.read() as (records, _):
            names = [name for _, name in records.names_of(self._record.id)]
        return Version.of(self._record, names)

    @property
    def regions(self) -> Mapping[str, Region]:
        """Name, dtype, shape and size of every region."""
        return {name: Region.of(region) for name, region in self._regions().items()}

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return `size` bytes of a region from byte `offset` on.

        The first calls cost what they read; memory is wired for who makes many.

        Raises
        ------
        NotFoundError
            There is no such region.
        InvalidError
            The range is not within it.
        """
        start, stop = check_range(self._region(name), offset, size)
        return self._read(name, start, stop) if size else b""

    def peek(self, name: str) -> np.ndarray[Any, Any]:
        """Return a region as an array that cannot be written to.

        In a workspace it shows what `Workspace.write` does as that happens, and is not searched for
        changes by a commit. It is valid until the region gets another size.

        Raises
        ------
        NotFoundError
            There is no such region.
        """
        region = self._region(name)
        array: np.ndarray[Any, Any] = self._wiring(name).array(
            region.dtype, region.shape, writable=False
        )
        return array

    def prefetch(self, name: str) -> None:
        """Bring a region's pages into memory now, rather than one by one as they are touched.

        Reading a mapped page that the disk cannot deliver would kill the process: this looks
        first, and says so.

        Raises
        ------
        NotFoundError
            There is no such region.
        CorruptionError
            The disk could not deliver a page.
        """
        wiring = self._wiring(name)
        if not wiring.pages:
            return
        try:
            kernel.prefetch(wiring.address, wiring.nbytes)
        except OSError as e:
            raise CorruptionError(f"region {name!r} could not be read whole: {e}") from e

    def close(self) -> None:
        """Let go of the version; arrays that were handed out stay as they are, and pin it."""
        self._closed = True
        self._wirings.clear()
        self.__dict__.pop("_anchor", None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------- details

    def _check(self) -> None:
        self._engine.check_open()
        if self._closed:
            raise ClosedError(f"this view of {self._engine.path} is closed")
        if self._lost:
            raise BrokenError(f"{self._lost}: close it and begin another")

    def _at_head(self, branch: str) -> bool:
        """Whether the version is the branch's head; next to free while nobody commits anything."""
        self._check()
        if self._engine.catalog.last != self._seen:
            with self._engine.read() as (records, _):
                if records.head(branch) != self._record.id:
                    return False
                self._seen = records.id
        return True

    def _regions(self) -> Mapping[str, RegionRecord]:
        self._check()
        return self._record.regions

    def _region(self, name: str) -> RegionRecord:
        regions = self._regions()
        try:
            return regions[name]
        except (KeyError, TypeError):
            raise NotFoundError(f"there is no region {name!r} in this version") from None

    def _read(self, name: str, start: int, stop: int) -> bytes:
        if name not in self._wirings:
            direct = self._directs.setdefault(name, Direct(self._engine.arena))
            if direct.suffices(stop - start, functools.partial(self._count, name)):
                return direct.read(functools.partial(self._slots, name), start, stop)
        return self._wiring(name).bytes()[start:stop].tobytes()

    def _count(self, name: str, most: int) -> int:
        with self._engine.read() as (_, nodes):
            return count(nodes, self._region(name).table, most)

    def _slots(self, name: str, pages: IntArray) -> IntArray:
        with self._engine.read() as (_, nodes):
            return lookup(nodes, self._region(name).table, pages)[0]

    def _wiring(self, name: str) -> Wiring:
        wiring = self._wirings.get(name)
        if wiring is None:
            wiring = self._wirings[name] = self._wire(self._region(name))
        return wiring

    def _wire(self, region: RegionRecord) -> Wiring:
        pages = page_count(region, self._engine.page_size)
        wiring = Wiring(
            self._engine.arena, pages, self._anchor, shared=self._shared,
            growable=self._growable, portable=self._engine.portable,
        )  # fmt: skip
        wiring.wire(self._extents(region))
        return wiring

    def _extents(self, region: RegionRecord) -> Extents:
        with self._engine.read() as (_, nodes):
            return extents(nodes, region.table)


class SnapshotView(View):
    """A version as private scratch memory: writes to its arrays stay in this process."""

    _writable = True


class LiveView(View):
    """The head of a branch as shared, read-only memory; `refresh` follows the branch."""

    _shared = True

    def __init__(self, engine: Engine, branch: str) -> None:
        record, pin = engine.pin_branch(branch)
        super().__init__(engine, record, pin)
        self.branch = branch
        self._torn = False  # a refresh failed: some pages may be those of another version

    @property
    def current(self) -> bool:
        """Whether the version is the branch's head; next to free while nobody commits anything."""
        return not self._torn and self._at_head(self.branch)

    def refresh(self) -> bool:
        """Move to the branch's head, remapping only what changed.

        Arrays that were handed out show the new contents in place, unless their region was
        deleted or outgrew its memory: those keep showing the old version.

        Returns
        -------
        bool
            Whether the head had moved.

        Raises
        ------
        FullError
            The process may have no more memory or mappings: arrays may show pages of both
            versions until a refresh succeeds.
        """
        if self.current:
            return False
        self._check()
        record, pin = self._engine.pin_branch(self.branch)
        anchor = Anchor(pin)
        if self._torn:
            self._mend()
        with self._engine.read() as (records, _):
            common = last_common(records, self._record, record)
        since = common if common == self._record.id else NO_VERSION
        self._torn = True
        for name, wiring in list(self._wirings.items()):
            old, new = self._record.regions[name], record.regions.get(name)
            if not self._follow(wiring, old, new, since, anchor):
                del self._wirings[name]
        for wiring in self._wirings.values():
            wiring.memory.anchor = anchor
        self._record, self._anchor, self._torn = record, anchor, False
        return True

    def _mend(self) -> None:
        """Show all of the old version again, some of which was brought to another."""
        for name, wiring in self._wirings.items():
            wiring.clear()
            wiring.wire(self._extents(self._record.regions[name]))

    def _follow(
        self,
        wiring: Wiring,
        old: RegionRecord,
        new: RegionRecord | None,
        since: VersionId,
        anchor: Anchor,
    ) -> bool:
        """Bring a range of memory to the new state of its region; False if it cannot be."""
        if new is None or new.id != old.id:
            return False
        pages = page_count(new, self._engine.page_size)
        if pages != wiring.pages:
            return False
        with self._engine.read() as (_, nodes):
            moved = moved_pages(nodes, old, new, since)
        wiring.memory.anchor = (wiring.memory.anchor, anchor)  # should it fail it shows both
        if wiring.rewire(Extents.join(d.news() for d in moved)) is None:
            wiring.clear()
            wiring.wire(self._extents(new))
        return True


def check_range(region: RegionRecord, offset: int, size: int) -> tuple[int, int]:
    """Return the byte range, or raise `InvalidError` unless it lies within the region."""
    for value in (offset, size):
        if not isinstance(value, int | np.integer) or value < 0:
            raise InvalidError(f"offset and size must be numbers from 0 on, not {value!r}")
    if offset + size > region.nbytes:
        raise InvalidError(
            f"bytes {offset} to {offset + size} are not within region {region.name!r} of "
            f"{region.nbytes} bytes"
        )
    return int(offset), int(offset + size)
