"""What a store that cannot be opened still says: its files, read without LMDB and without mapping.

Owns: gathering whatever is whole by itself, and naming what is not. Every record that is shown has
a right checksum; that all of them are of one state nobody can say any more.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from attr import frozen

from pagestore.decoded import version_of
from pagestore.directory import ARENA, BALLAST, CATALOG, PINS, absolute
from pagestore.errors import CorruptionError, FormatError, NotFoundError
from pagestore.format import (
    BRANCH,
    HEAD_OFFSETS,
    SNAPSHOT,
    SUPERBLOCK_SIZE,
    VERSION,
    VERSION_KEY_SIZE,
    HeadCopy,
    NameRecord,
    Superblock,
    VersionRecord,
    key_name,
    unseal,
)
from pagestore.history import Version, utc
from pagestore.soundness import unsound
from pagestore.structure import remnants


@frozen
class Remains:
    """What the files of a store say; None and missing is what they do not.

    Attributes
    ----------
    files : mapping of str to int
        Lengths in bytes, by name.
    store_id : str or None
    created : datetime or None
    page_size : int or None
    newest : int or None
        The version that the arena saw last.
    versions : tuple of Version
        Those whose records are whole, oldest first, with the names whose records are.
    damage : tuple of str
    """

    files: Mapping[str, int]
    store_id: str | None
    created: datetime | None
    page_size: int | None
    newest: int | None
    versions: tuple[Version, ...]
    damage: tuple[str, ...]


def remains(path: str | os.PathLike[str]) -> Remains:
    """Read what is left of a store that `open` refuses.

    Nothing is mapped, locked or changed. What it shows of versions and names are records with right
    checksums, which may be of different times. Costs the length of the catalog.

    Parameters
    ----------
    path : path-like

    Raises
    ------
    NotFoundError
        There is nothing.
    FormatError
        It never was a store, or it is one of a newer format.
    """
    where = absolute(path)
    damage: list[str] = []
    files = _files(where, damage)
    block, newest = _arena(where, files, damage)
    versions = _versions(f"{where}/{CATALOG}", damage) if CATALOG in files else ()
    return Remains(
        files=MappingProxyType(files),
        store_id=block.store_id.hex() if block else None,
        created=utc(block.created) if block else None,
        page_size=block.page_size if block else None,
        newest=newest,
        versions=versions,
        damage=tuple(dict.fromkeys(damage)),
    )


def _files(where: str, damage: list[str]) -> dict[str, int]:
    if not os.path.isdir(where):
        raise NotFoundError(f"there is no directory {where}")
    files = {
        name: os.path.getsize(f"{where}/{name}")
        for name in (ARENA, CATALOG, PINS, BALLAST)
        if os.path.isfile(f"{where}/{name}")
    }
    if ARENA not in files and CATALOG not in files:
        raise FormatError(f"{where} is not a pagestore: it holds no arena and no catalog")
    damage += [f"{where}/{name} is missing" for name in (ARENA, CATALOG) if name not in files]
    return files


def _arena(
    where: str, files: Mapping[str, int], damage: list[str]
) -> tuple[Superblock | None, int | None]:
    """The superblock, and the newest version that a head copy tells of."""
    if ARENA not in files:
        return None, None
    path = f"{where}/{ARENA}"
    with open(path, "rb", buffering=0) as file:
        raw = file.read(SUPERBLOCK_SIZE)
    copies = [copy for at in HEAD_OFFSETS if (copy := HeadCopy.unpack(raw[at : at + 512]))]
    newest = max(copies, key=lambda c: c.transaction).version if copies else None
    try:
        return Superblock.unpack(raw, path), newest
    except CorruptionError as e:
        damage.append(str(e))
    except FormatError as e:  # of a newer format, or its first bytes are damaged
        if CATALOG not in files or "upgrade" in str(e):
            raise
        damage.append(str(e))
    return None, newest


def _versions(path: str, damage: list[str]) -> tuple[Version, ...]:
    before = len(damage)
    records: dict[int, VersionRecord] = {}
    names: dict[tuple[bytes, str], int] = {}
    for key, value in remnants(path, damage.append):
        try:
            if key[:1] == VERSION and len(key) == VERSION_KEY_SIZE:
                _note_version(key, unseal(key, value), records)
            elif key[:1] in (SNAPSHOT, BRANCH):
                name = key[:1], key_name(key[1:])
                version = int(NameRecord.unpack(unseal(key, value)).version)
                names[name] = max(version, names.get(name, 0))  # a head only moves on
        except CorruptionError as e:
            damage.append(str(e))
    if len(damage) == before:  # the records are whole: is it the pages, or how LMDB counts them?
        fault = unsound(path)
        damage += [f"{path}: {fault}"] * bool(fault)
    named: dict[int, list[str]] = {}
    for (_, text), number in names.items():
        named.setdefault(number, []).append(text)
    return tuple(Version.of(records[v], named.get(v, ())) for v in sorted(records))


def _note_version(key: bytes, raw: bytes, records: dict[int, VersionRecord]) -> None:
    record = version_of(key, raw, None)
    assert record is not None  # it raises
    known = records.get(record.id)
    if known is None or record.parent < known.parent:  # as its ancestors go, its parent is older
        records[record.id] = record
