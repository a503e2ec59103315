"""The half of the public face that changes nothing: what a store holds, and held."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pagestore import diff as _diff
from pagestore import history as _history
from pagestore.diff import Change
from pagestore.engine import Engine
from pagestore.errors import (
    ClosedError,
    CorruptionError,
    InvalidError,
    NotFoundError,
    PagestoreError,
)
from pagestore.format import BRANCH, SNAPSHOT, VersionId, check_name
from pagestore.history import Version
from pagestore.later import Later

if TYPE_CHECKING:
    import pathlib as _pathlib

    from pagestore import freed as _freed
    from pagestore import layout as _layout
    from pagestore import lineage as _lineage
    from pagestore import notebook as _notebook
    from pagestore import sharing as _sharing
    from pagestore import stats as _stats
    from pagestore import verify as _verify
    from pagestore.freed import Freed
    from pagestore.layout import PageTable, RegionLayout
    from pagestore.lineage import Step
    from pagestore.sharing import VersionSpace
    from pagestore.stats import Stats
    from pagestore.verify import Finding
else:
    _pathlib = Later("pathlib")
    _freed = Later("pagestore.freed")
    _layout = Later("pagestore.layout")
    _lineage = Later("pagestore.lineage")
    _notebook = Later("pagestore.notebook")
    _sharing = Later("pagestore.sharing")
    _stats = Later("pagestore.stats")
    _verify = Later("pagestore.verify")

Ref = str | int | Version
"""A snapshot or branch name, a `Version`, its id, or ``"NAME~2"`` (second kept ancestor)."""

PAGE_OF_NAMES = 1000


class Reader:
    """What can be asked of an open store; its other half is `Store`."""

    def __init__(self, engine: Engine) -> None:
        self._shared = engine
        self._closed = False

    @property
    def _engine(self) -> Engine:
        if self._closed:
            raise ClosedError(f"the store {self._shared.path} is closed")
        self._shared.check_open()
        return self._shared

    def __repr__(self) -> str:
        return f"<pagestore.Store {self._shared.path}{' (closed)' if self._closed else ''}>"

    def _repr_html_(self) -> str:
        try:
            return _notebook.line(repr(self)) + "".join(map(self._shown, ("branches", "snapshots")))
        except PagestoreError as e:  # closed, or damaged
            return _notebook.line(f"{self!r}: {e}")

    def _shown(self, kind: str) -> str:
        versions: Mapping[str, Version] = getattr(self, kind)
        found = ((name, versions[name]) for name in versions)
        rows = ((name, v.id, v.time, v.message) for name, v in found)
        return _notebook.table(kind.title(), ("name", "version", "committed", "message"), rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close this handle. Arrays that were handed out stay as they are, and pinned."""
        if not self._closed:
            self._closed = True
            self._shared.close()

    @property
    def path(self) -> _pathlib.Path:
        """The store's directory."""
        return _pathlib.Path(self._shared.path)

    @property
    def page_size(self) -> int:
        """Bytes a page."""
        return self._shared.page_size

    # ------------------------------------------------------------------------------- history

    @property
    def snapshots(self) -> Mapping[str, Version]:
        """Every snapshot name and its version; looked up as it is asked."""
        return _Names(self, SNAPSHOT, "snapshot")

    @property
    def branches(self) -> Mapping[str, Version]:
        """Every branch name and its head; looked up as it is asked."""
        return _Names(self, BRANCH, "branch")

    def version(self, ref: Ref) -> Version:
        """Return the version that a name, an id or ``NAME~2`` stands for.

        Raises
        ------
        NotFoundError
            There is none.
        """
        with self._engine.read() as (records, _):
            record = records.resolve(plain(ref))
            names = [name for _, name in records.names_of(record.id)]
        return Version.of(record, names)

    def versions(
        self, newest: int | None = None, *, damaged: list[str] | None = None
    ) -> list[Version]:
        """Return every kept version, named or not, oldest first.

        All are of one look: a parent is among them too, so the graph can be drawn from it.

        Parameters
        ----------
        newest : int, optional
            Only so many, those with the highest ids.
        damaged : list of str, optional
            Takes what is wrong with records that cannot be read; their versions or names are then
            left out. Otherwise the first one raises `CorruptionError`.
        """
        if newest is not None and _whole(newest, "newest") < 0:
            raise InvalidError(f"there cannot be {newest} versions")
        with self._engine.read() as (records, _):
            return _history.versions(records, newest, _told(damaged))

    def log(self, ref: Ref = "main") -> Iterator[Version]:
        """Yield a version and its kept ancestors, newest first."""
        shown: Version | None = self.version(ref)
        while shown is not None:
            yield shown
            try:
                following = self.version(shown.parent) if shown.parent else None
            except NotFoundError:  # dropped while the caller looked at its child
                following = self._ancestor(shown)
            shown = following

    def _ancestor(self, version: Version) -> Version | None:
        """The nearest kept ancestor as it is now."""
        with self._engine.read() as (records, _):
            try:
                parent = records.version(VersionId(version.id)).parent
            except NotFoundError:
                return None
        return self.version(parent) if parent else None

    def lineage(self, *, damaged: list[str] | None = None) -> list[Step]:
        """Return every kept version and the pages it brought, ancestors first, at one instant.

        Costs what the versions changed, together: 32 bytes of memory a page.

        Parameters
        ----------
        damaged : list of str, optional
            What cannot be read is left out, as if it had not changed, and described here.

        Raises
        ------
        CorruptionError
            Something cannot be read, and `damaged` is not given.
        """
        return _lineage.lineage(self._engine, damaged)

    def diff(self, a: Ref, b: Ref) -> Iterator[Change]:
        """Yield what version `b` has differently from `a`, by region and page.

        Costs what changed between the two, not what they hold.
        """
        engine = self._engine
        with engine.read() as (records, nodes):
            old, new = records.resolve(plain(a)), records.resolve(plain(b))
            found = list(_diff.changes(records, nodes, old, new, engine.page_size))
        yield from found

    # ----------------------------------------------------------------------------- the whole

    def check(self, data: bool = False) -> Iterator[Finding]:
        """Yield everything that is not as it must be; nothing for a healthy store.

        Parameters
        ----------
        data : bool
            Also read every page and compare it with its checksum.
        """
        return _verify.check(self._engine, data=data)

    def stats(self) -> Stats:
        """Count what the store holds as a whole, and who looks at it.

        Costs the slots of the arena and the number of versions, not what they changed.
        """
        return _stats.stats(self._engine)

    def space(self) -> dict[int, VersionSpace]:
        """Return what each kept version refers to, alone holds, and brought; by its id.

        Exact, and one pass: costs what all kept versions changed together.
        """
        engine = self._engine
        with engine.read() as (records, nodes):
            every = list(records.versions())
            return _sharing.space(nodes, every, records.meta.slots, engine.page_size)

    def freed_by(self, *refs: Ref) -> Freed:
        """Find what deleting some names and versions together would free, without doing it.

        A name stands for itself: its version stays if it has another. An id or a `Version` stands
        for all its names, and for the mark of ``history="all"``. Exact: the same code deletes. What
        is pinned comes free when the pin goes. Costs what those versions changed.

        Raises
        ------
        NotFoundError
            There is no such version.
        """
        engine = self._engine
        with engine.read() as (records, nodes):
            return _freed.freed_by(records, nodes, map(plain, refs), engine.page_size)

    def layout(
        self, ref: Ref = "main", *, damaged: list[str] | None = None
    ) -> dict[str, RegionLayout]:
        """Return how the pages of each region of a version lie, by the region's name.

        Costs the extents of its page tables, and what its children changed.

        Parameters
        ----------
        ref : Ref
        damaged : list of str, optional
            Takes what is wrong with regions that cannot be read, which are then left out.

        Raises
        ------
        NotFoundError
            There is no such version.
        """
        engine = self._engine
        with engine.read() as (records, nodes):
            version = records.resolve(plain(ref))
            return _layout.layout(records, nodes, version, engine.page_size, _told(damaged))

    def page_table(
        self, ref: Ref, region: str, start: int = 0, stop: int | None = None, *,
        sharing: bool = False,
    ) -> PageTable:  # fmt: skip
        """Return where the pages of a region lie, who wrote them, and their checksums.

        Costs what is stored of the range; with `sharing`, also what all versions changed of the
        region.

        Parameters
        ----------
        ref : Ref
        region : str
        start, stop : int
            Half-open range of page numbers; all, if not given.
        sharing : bool
            Also count, for each page, the kept versions that refer to the same slot.

        Raises
        ------
        NotFoundError
            There is no such version, or it has no such region.
        InvalidError
            The range is not one of numbers.
        """
        engine = self._engine
        start, stop = _whole(start, "start"), None if stop is None else _whole(stop, "stop")
        with engine.read() as (records, nodes):
            version = records.resolve(plain(ref))
            found = version.regions.get(region) if isinstance(region, str) else None
            if found is None:
                raise NotFoundError(f"version {version.id} has no region {region!r}")
            return _layout.page_table(
                records, nodes, version, found, start, stop, engine.page_size, sharing=sharing
            )


def _whole(number: object, what: str) -> int:
    """A number that has to be whole."""
    try:
        return operator.index(number)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidError(f"{what} is a whole number, not {type(number).__name__}") from None


def _told(damaged: list[str] | None) -> Callable[[CorruptionError], object] | None:
    """What notes damage in the caller's list, if there is one."""
    return None if damaged is None else lambda e: damaged.append(str(e))


def plain(ref: object) -> object:
    """A ref without the class that only users know."""
    return ref.id if isinstance(ref, Version) else ref


class _Names(Mapping[str, Version]):
    """Names of one kind; every look goes to the catalog, and none outlives its call."""

    def __init__(self, reader: Reader, kind: bytes, what: str) -> None:
        self._reader = reader
        self._kind = kind
        self._what = what

    def __getitem__(self, name: str) -> Version:
        with self._reader._engine.read() as (records, _):
            found = records.name(self._kind, name) if _is_name(name) else None
            if found is None:
                raise NotFoundError(f"there is no {self._what} {name!r}")
            record = records.version(found.version)
            names = [n for _, n in records.names_of(record.id)]
        return Version.of(record, names, found.message)

    def __iter__(self) -> Iterator[str]:
        after = ""
        while True:
            with self._reader._engine.read() as (records, _):
                names = records.names_after(self._kind, after, PAGE_OF_NAMES)
            yield from names
            if len(names) < PAGE_OF_NAMES:
                return
            after = names[-1]

    def __len__(self) -> int:
        with self._reader._engine.read() as (records, _):
            return records.count(self._kind)

    def __contains__(self, name: object) -> bool:
        with self._reader._engine.read() as (records, _):
            return _is_name(name) and records.name(self._kind, str(name)) is not None

    def __repr__(self) -> str:
        return f"<{self._what} names of {self._reader.path}: {len(self)}>"


def _is_name(name: object) -> bool:
    try:
        check_name(name, "")
    except InvalidError:
        return False
    return True
