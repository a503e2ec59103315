"""What a user sees of a version: plain frozen values, detached from the store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from attr import field, frozen

from pagestore.decoded import Damage
from pagestore.format import CHILD, RegionRecord, VersionRecord, key_name
from pagestore.later import Later
from pagestore.transaction import Transaction

if TYPE_CHECKING:
    from pagestore import notebook as _notebook
else:
    _notebook = Later("pagestore.notebook")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@frozen
class Region:
    """A named array of a version.

    Attributes
    ----------
    name : str
    dtype : numpy.dtype
    shape : tuple of int
    nbytes : int
        Bytes of the array (not of what is stored of it).
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    nbytes: int

    @classmethod
    def of(cls, record: RegionRecord) -> Region:
        return cls(record.name, record.dtype, record.shape, record.nbytes)


@frozen
class Version:
    """One committed state of a store.

    Attributes
    ----------
    id : int
        Grows along every line of work.
    parent : int or None
        The nearest ancestor that is kept, at the time of asking.
    time : datetime
        When it was committed; aware, UTC.
    message : str
    names : tuple of str
        The snapshots and branches that stood for it at the time of asking.
    regions : mapping of str to Region
    """

    id: int
    parent: int | None
    time: datetime
    message: str
    names: tuple[str, ...]
    regions: Mapping[str, Region] = field(repr=False, hash=False)

    def _repr_html_(self) -> str:
        about = (self.time, self.message, self.parent or "none", self.names)
        head = _notebook.table(
            f"Version {self.id}", ("committed", "message", "parent", "names"), [about]
        )
        return head + region_table(self.regions)

    @classmethod
    def of(cls, record: VersionRecord, names: Iterable[str], message: str = "") -> Version:
        return cls(
            record.id,
            record.parent or None,
            utc(record.time),
            message or record.message,
            tuple(sorted(names)),
            MappingProxyType({n: Region.of(r) for n, r in record.regions.items()}),
        )


def region_table(regions: Mapping[str, Region]) -> str:
    """What a notebook shows of some regions."""
    rows = ((r.name, r.dtype, r.shape, _notebook.size(r.nbytes)) for r in regions.values())
    return str(_notebook.table("Regions", ("name", "dtype", "shape", "size"), rows))


def versions(
    records: Transaction, newest: int | None = None, damaged: Damage | None = None
) -> list[Version]:
    """Kept versions with their names, oldest first."""
    names: defaultdict[int, list[str]] = defaultdict(list)
    if newest is None:
        found = list(records.versions(damaged))
        for version, kind, rest in records.kinship(damaged):
            if kind != CHILD:
                names[version].append(key_name(rest))
    else:
        found = records.newest(newest, damaged)
        for record in found:
            names[record.id] = [name for _, name in records.names_of(record.id)]
    return [Version.of(record, names.get(record.id, ())) for record in found]


def utc(time: int) -> datetime:
    """The aware time that is so many nanoseconds behind the epoch."""
    return _EPOCH + timedelta(microseconds=time // 1000)


def nanoseconds(time: datetime) -> int:
    """Nanoseconds since the epoch of an aware time."""
    return (time - _EPOCH) // timedelta(microseconds=1) * 1000
