"""The records of one transaction: versions and their kinship, names, counters, and their sum.

Owns: what a look at the catalog gives, and what a change of it writes. Does not know how the
environment is opened, committed or kept from harm.

- X1  Every record is unsealed before it is believed, and bounded before it is used.
- X2  A transaction that changes a record changes the meta record too: its own number, and the sum
      of all other records. A page of the file that went back in time cannot agree with both.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import lmdb
import numpy as np

from pagestore import decoded
from pagestore.bounds import check_meta
from pagestore.decoded import Damage
from pagestore.errors import CorruptionError, ExistsError, InvalidError, NotFoundError
from pagestore.format import (
    BRANCH,
    CHILD,
    MAX_NAME,
    META,
    NO_VERSION,
    SNAPSHOT,
    UNKEPT,
    VERSION,
    VERSION_KEY_SIZE,
    Meta,
    NameRecord,
    NodeId,
    RegionId,
    VersionId,
    VersionRecord,
    child_key,
    key_name,
    name_key,
    named_key,
    number_key,
    record_sum,
    seal,
    split_version_key,
    unseal,
    unseal_view,
)

_BEHIND_VERSIONS = bytes([VERSION[0] + 1])


@functools.lru_cache(16)
def _meta(raw: bytes) -> Meta:
    meta = Meta.unpack(raw)
    check_meta(meta)
    return meta


class Transaction:
    """Sealed records within one LMDB transaction."""

    def __init__(self, txn: lmdb.Transaction, *, writing: bool = False) -> None:
        self._txn: Any = txn  # with buffers=False all it gives is bytes
        self.written = 0
        raw = self.get(META)
        if raw is None:
            raise CorruptionError("the catalog has no meta record: it was emptied or replaced")
        self._meta, self._changed = _meta(raw), dict[str, int]()
        last = self.id - writing
        if self.meta.transaction != last:
            raise CorruptionError(
                f"the catalog's meta record is of transaction {self.meta.transaction}, the catalog "
                f"of {last}: a part of it is older, or was not written by pagestore (X2)"
            )
        self._sum = self.meta.records
        self._unwritten: dict[VersionId, VersionRecord] = {}  # until `finish`: they change again
        self.roots: dict[VersionId, bytes] = {}  # of versions that were written
        self._names: dict[bytes, NameRecord | None] = {}  # as the transaction has them
        self._first_new = self._meta.next_version  # from here on versions are of this transaction

    @property
    def id(self) -> int:
        """LMDB's number of this transaction: what it sees, or what it makes."""
        return int(self._txn.id())

    # ------------------------------------------------------------------------------- records

    def get(self, key: bytes) -> bytes | None:
        value = self._txn.get(key)
        return None if value is None else unseal(key, value)

    def view(self, key: bytes) -> memoryview | None:
        """As `get`, for what may be large: it is not copied once more."""
        value = self._txn.get(key)
        return None if value is None else unseal_view(key, value)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes]:
        """What records hold, in the order of their keys; a missing one is left out."""
        with self._txn.cursor() as cursor:
            return [unseal(key, value) for key, value in cursor.getmulti(keys)]

    def put(self, key: bytes, payload: bytes) -> None:
        value = seal(key, payload)
        self.written += len(value)
        old = self._txn.replace(key, value)
        self._sum += record_sum(value) - (record_sum(old) if old else 0)

    def delete(self, key: bytes) -> bool:
        value = self._txn.pop(key)
        if value is None:
            return False
        self._sum -= record_sum(value)
        self.written += 256
        return True

    def scan(self, prefix: bytes, damaged: Damage | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Records whose keys begin with `prefix`, in order."""
        with self._txn.cursor() as cursor:
            if not cursor.set_range(prefix):
                return
            for key, value in cursor:
                if not key.startswith(prefix):
                    return
                payload = decoded.whole(key, value, damaged)
                if payload is not None:
                    yield key, payload

    def keys(self, prefix: bytes) -> Iterator[bytes]:
        """Keys that begin with `prefix`, in order; a damaged one is not taken for a key."""
        return (key for key, _ in self.scan(prefix))

    def has(self, prefix: bytes) -> bool:
        """Whether any key begins with `prefix`."""
        with self._txn.cursor() as cursor:
            return bool(cursor.set_range(prefix)) and cursor.key().startswith(prefix)

    def count(self, prefix: bytes) -> int:
        """How many keys begin with `prefix`."""
        return sum(1 for _ in self.keys(prefix))

    # ------------------------------------------------------------------------------ counters

    @property
    def meta(self) -> Meta:
        """The meta record as the transaction leaves it."""
        if self._changed:
            changes: Any = self._changed
            self._meta, self._changed = self._meta._replace(**changes), {}
        return self._meta

    def number(self, counter: str) -> int:
        """One number of the meta record, as the transaction leaves it."""
        value: int | None = self._changed.get(counter)
        return getattr(self._meta, counter) if value is None else value

    def change_meta(self, **numbers: int) -> None:
        """Give numbers of the meta record other values; merged when it is looked at."""
        self._changed |= numbers

    def _next(self, counter: str) -> int:
        value = self.number(counter)
        self._changed[counter] = value + 1
        return value

    def new_version(self) -> VersionId:
        return VersionId(self._next("next_version"))

    def new_node(self) -> NodeId:
        return NodeId(self._next("next_node"))

    def new_region(self) -> RegionId:
        return RegionId(self._next("next_region"))

    def new_number(self) -> int:
        return self._next("next_number")

    def finish(self) -> None:
        """Write what was held back, and have the meta record speak of this transaction (X2)."""
        self.write_versions()
        if self.written:
            self.change_meta(transaction=self.id, records=self._sum % (1 << 64))
            value = seal(META, self.meta.pack())
            self.written += len(value)
            self._txn.put(META, value)

    def add_up(self) -> int:
        """The sum of every record as it is: what the meta record must say (X2)."""
        parts = []
        with self._txn.cursor() as cursor:
            for raw, value in cursor:
                key, sealed = bytes(raw), bytes(value)
                if key != META:
                    unseal(key, sealed)
                    parts.append(sealed[:8])
        sums = np.frombuffer(b"".join(parts), "<u8")
        return int(np.add.reduce(sums, dtype=np.uint64))

    # ------------------------------------------------------------------------------ versions

    def version(self, version: VersionId) -> VersionRecord:
        """Return a kept version; `NotFoundError` if there is none of that id."""
        if not isinstance(version, int) or not 0 < version < 1 << 63:
            raise NotFoundError(f"there is no version {version}")
        if version in self._unwritten:
            return self._unwritten[version]
        raw = self.get(number_key(VERSION, version))
        if raw is None:
            raise NotFoundError(f"there is no version {version}: dropped, or never made")
        record = decoded.version(raw)
        if record.id != version:
            raise CorruptionError(f"the record of version {version} says it is {record.id}")
        return record

    def put_version(self, record: VersionRecord) -> None:
        self._unwritten[record.id] = record

    def write_versions(self) -> None:
        """Write what `put_version` held back."""
        for record in self._unwritten.values():
            root = self.roots[record.id] = record.root()
            raw = record.pack(root)
            decoded.remember(raw, record)
            self.put(number_key(VERSION, record.id), raw)
        self._unwritten.clear()

    def add_version(self, record: VersionRecord) -> None:
        self.put_version(record)
        if record.parent != NO_VERSION:
            self.put(child_key(record.parent, record.id), b"")

    def remove_line(self, line: Sequence[VersionRecord], heirs: Sequence[VersionRecord]) -> None:
        """Forget versions that follow each other; who is left of the last's children moves up."""
        parent = line[0].parent
        for record in line:
            if record.parent != NO_VERSION:
                self.delete(child_key(record.parent, record.id))
            self._unwritten.pop(record.id, None)
            self.delete(number_key(VERSION, record.id))
            self.delete(number_key(UNKEPT, record.id))
        for heir in heirs:
            self.delete(child_key(heir.parent, heir.id))
            self.put_version(heir._replace(parent=parent))
            if parent != NO_VERSION:
                self.put(child_key(parent, heir.id), b"")

    def kin(
        self,
        version: VersionId,
        heirs: Mapping[VersionId, VersionId],
        ignored: Collection[bytes] = (),
    ) -> tuple[bool, list[VersionId]]:
        """Whether a name stands for a version, and if not, its first two children.

        For a child among `heirs` its heir counts, if it has one; keys in `ignored` do not.
        """
        children: list[VersionId] = []
        for key in self.keys(number_key(VERSION, version)):
            kind = key[VERSION_KEY_SIZE : VERSION_KEY_SIZE + 1]
            if kind in _KINDS and key not in ignored:
                return True, []
            if kind == CHILD:
                child = VersionId(int.from_bytes(key[VERSION_KEY_SIZE + 1 :], "big"))
                child = heirs.get(child, child)
                if child != NO_VERSION:
                    children.append(child)
                if len(children) == 2:
                    break
        return False, children

    def children(self, version: VersionId) -> list[VersionId]:
        rests = (split_version_key(key)[2] for key in self.keys(child_key(version)))
        return [VersionId(int.from_bytes(rest, "big")) for rest in rests]

    def versions(self, damaged: Damage | None = None) -> Iterator[VersionRecord]:
        """Every kept version, oldest first."""
        self.write_versions()
        for key, raw in self.scan(VERSION, damaged):
            if len(key) == VERSION_KEY_SIZE and (record := decoded.version_of(key, raw, damaged)):
                yield record

    def newest(self, count: int, damaged: Damage | None = None) -> list[VersionRecord]:
        """The kept versions with the highest ids, oldest first."""
        with self._txn.cursor() as cursor:
            if not ((cursor.set_range(_BEHIND_VERSIONS) and cursor.prev()) or cursor.last()):
                return []
            back = itertools.takewhile(lambda row: row[0][:1] == VERSION, cursor.iterprev())
            sealed = ((bytes(k), bytes(v)) for k, v in back if len(k) == VERSION_KEY_SIZE)
            whole = ((k, raw) for k, v in sealed if (raw := decoded.whole(k, v, damaged)))
            found = (decoded.version_of(key, raw, damaged) for key, raw in whole)
            return list(itertools.islice(filter(None, found), count))[::-1]

    def count_versions(self) -> int:
        return sum(1 for key in self.keys(VERSION) if len(key) == VERSION_KEY_SIZE)

    def kinship(self, damaged: Damage | None = None) -> Iterator[tuple[VersionId, bytes, bytes]]:
        """Version, kind and rest of every record that belongs to a version."""
        for key, _ in self.scan(VERSION, damaged):
            if len(key) != VERSION_KEY_SIZE:
                yield split_version_key(key)

    # --------------------------------------------------------------------------------- names

    def name(self, kind: bytes, name: str) -> NameRecord | None:
        try:
            key = name_key(kind, name)
        except UnicodeEncodeError:
            return None
        if key not in self._names:
            raw = self.get(key) if len(name) <= MAX_NAME else None
            self._names[key] = None if raw is None else NameRecord.unpack(raw)
        return self._names[key]

    def head(self, branch: str) -> VersionId:
        """The newest version of a branch."""
        if not isinstance(branch, str):
            raise InvalidError(f"a branch is named by a string, not {type(branch).__name__}")
        record = self.name(BRANCH, branch)
        if record is None:
            raise NotFoundError(f"there is no branch {branch!r}")
        return record.version

    def put_name(self, kind: bytes, name: str, record: NameRecord) -> VersionId:
        """Let a name stand for a version; return what it stood for (0: nothing)."""
        old, key = self.name(kind, name), name_key(kind, name)
        if old is not None:
            self.delete(named_key(old.version, kind, name))
        self.put(key, record.pack())
        self._names[key] = record
        self.put(named_key(record.version, kind, name), b"")
        if record.version < self._first_new:
            self.delete(number_key(UNKEPT, record.version))
        return old.version if old else NO_VERSION

    def remove_name(self, kind: bytes, name: str) -> VersionId:
        old = self.name(kind, name)
        if old is None:
            raise NotFoundError(f"there is no {_KINDS[kind]} {name!r}")
        key = name_key(kind, name)
        self.delete(key)
        self._names[key] = None
        self.delete(named_key(old.version, kind, name))
        return old.version

    def check_free(self, name: str) -> None:
        """Raise `ExistsError` if a snapshot or a branch has this name."""
        for kind in (SNAPSHOT, BRANCH):
            if self.name(kind, name) is not None:
                raise ExistsError(f"there is a {_KINDS[kind]} {name!r} already")

    def names(self, kind: bytes) -> Iterator[tuple[str, NameRecord]]:
        for key, raw in self.scan(kind):
            yield key_name(key[1:]), NameRecord.unpack(raw)

    def names_after(self, kind: bytes, after: str, count: int) -> list[str]:
        """Up to `count` names that sort behind `after` (by their bytes)."""
        with self._txn.cursor() as cursor:
            if not cursor.set_range(name_key(kind, after) + b"\0" * bool(after)):
                return []
            found = itertools.takewhile(lambda row: row[0][:1] == kind, cursor)
            names = []
            for key, value in itertools.islice(found, count):
                unseal(bytes(key), bytes(value))  # a damaged key must not be taken for a name
                names.append(key_name(bytes(key[1:])))
            return names

    def names_of(self, version: VersionId) -> list[tuple[bytes, str]]:
        """Kind and name of everything that stands for a version."""
        found = []
        for kind in (SNAPSHOT, BRANCH):
            prefix = named_key(version, kind)
            found += [(kind, key_name(key[len(prefix) :])) for key in self.keys(prefix)]
        return found

    def resolve(self, ref: object) -> VersionRecord:
        """Return the version that a name, an id or ``NAME~2`` refers to."""
        if isinstance(ref, int) and not isinstance(ref, bool):
            return self.version(VersionId(ref))
        if not isinstance(ref, str):
            raise InvalidError(
                f"a version is named by a string, an id or a Version, not {type(ref).__name__}"
            )
        base, tilde, steps = ref.partition("~")
        if tilde and steps and not (steps.isascii() and steps.isdigit()):
            raise InvalidError(f"{ref!r}: '~' takes a number of ancestors")
        record = self._resolve_name(base)
        # more steps than there are versions say the same as any number that is too large
        for _ in range(int(steps.lstrip("0")[:20] or "0") if steps else len(tilde)):
            if record.parent == NO_VERSION:
                raise NotFoundError(f"{ref!r}: version {record.id} has no kept ancestor")
            record = self.version(record.parent)
        return record

    def _resolve_name(self, name: str) -> VersionRecord:
        for kind in (SNAPSHOT, BRANCH):
            found = self.name(kind, name) if name else None
            if found is not None:
                return self.version(found.version)
        if name.isascii() and name.isdigit() and len(name) < 20:
            return self.version(VersionId(int(name)))
        raise NotFoundError(f"there is no snapshot or branch {name!r}")


_KINDS = {SNAPSHOT: "snapshot", BRANCH: "branch"}
