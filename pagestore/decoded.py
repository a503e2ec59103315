"""Records as they are believed: unsealed, decoded, bounded; and what is damaged raised, or told.

Owns: the version records that were decoded last, for they are asked for again and again. Does not
know where a record comes from.
"""

from __future__ import annotations

from collections.abc import Callable

from pagestore.bounds import check_version
from pagestore.errors import CorruptionError
from pagestore.format import VersionRecord, split_version_key, unseal

DECODED_MOST = 256  # version records

Damage = Callable[[CorruptionError], object]
"""Told of a record that is damaged, which is then left out; without one, its error is raised."""

_decoded: dict[bytes, VersionRecord] = {}


def version(raw: bytes) -> VersionRecord:
    """The version that a record holds."""
    record = _decoded.get(raw)
    if record is None:
        record = VersionRecord.unpack(raw)
        check_version(record)
        remember(raw, record)
    return record


def remember(raw: bytes, record: VersionRecord) -> None:
    """Note what a record will be decoded to."""
    if len(_decoded) >= DECODED_MOST:
        _decoded.clear()
    _decoded[raw] = record


def whole(key: bytes, value: bytes, damaged: Damage | None) -> bytes | None:
    """What a sealed record holds; None where it is damaged, and somebody was told."""
    try:
        return unseal(key, value)
    except CorruptionError as e:
        if damaged is None:
            raise
        damaged(e)
        return None


def version_of(key: bytes, raw: bytes, damaged: Damage | None) -> VersionRecord | None:
    """The version that a record under a key holds, likewise."""
    try:
        record = version(raw)
        if record.id != split_version_key(key)[0]:
            raise CorruptionError(f"version {record.id} lies under another's key")
    except CorruptionError as e:
        if damaged is None:
            raise
        damaged(e)
        return None
    return record
