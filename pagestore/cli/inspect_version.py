"""The screen of ``pagestore inspect STORE REF``: one version, region by region."""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from attrs import frozen

import pagestore
from pagestore.cli import as_json
from pagestore.cli.failure import said
from pagestore.cli.output import (
    Bytes,
    Cell,
    console,
    for_eyes,
    human_size,
    is_terminal,
    line,
    printable,
    table,
)
from pagestore.cli.screen import Screen

LAYOUT = {
    "region": "cyan", "dtype": "", "shape": "", "stored": "", "zeros": "", "runs": "",
    "exclusive": "",
}  # fmt: skip


def layout_row(version: pagestore.Version, part: pagestore.RegionLayout) -> tuple[Cell, ...]:
    """The cells of a region under `LAYOUT`."""
    region = version.regions[part.name]
    size = part.referred_bytes // part.stored_pages if part.stored_pages else 0
    zeros = part.zero_pages * size if size else region.nbytes
    return (
        part.name, dtype_text(region.dtype), "×".join(map(str, region.shape)) or "()",
        Bytes(part.referred_bytes), Bytes(zeros), part.runs, Bytes(part.exclusive_bytes),
    )  # fmt: skip


def dtype_text(dtype: "np.dtype[Any]") -> str:
    """A dtype in few letters: ``f8``; a record of 12 bytes is ``V12``."""
    return dtype.str.lstrip("<|=")


def layout_object(version: pagestore.Version, part: pagestore.RegionLayout) -> dict[str, Any]:
    """A region as JSON has it."""
    region = version.regions[part.name]
    return {
        "name": part.name,
        "dtype": np.lib.format.dtype_to_descr(region.dtype),
        "shape": region.shape,
        "nbytes": region.nbytes,
        "pages": part.pages,
        "stored_pages": part.stored_pages,
        "zero_pages": part.zero_pages,
        "runs": part.runs,
        "referred_bytes": part.referred_bytes,
        "exclusive_bytes": part.exclusive_bytes,
    }


@frozen
class Inspected:
    """What could be read of a version; `damage` says what could not."""

    version: pagestore.Version
    layout: Mapping[str, pagestore.RegionLayout]
    freed: pagestore.Freed | None
    damage: list[str]

    @property
    def referred(self) -> int:
        """Bytes that it shows."""
        return sum(part.referred_bytes for part in self.layout.values())

    @property
    def exclusive(self) -> int:
        """Bytes that no other version shows."""
        return sum(part.exclusive_bytes for part in self.layout.values())


def show_version(store: pagestore.Store, version: pagestore.Version, json: bool) -> bool:
    """Show a version, and what deleting all its names would free; say whether it is whole."""
    found = _look(store, version)
    if json:
        as_json.write([_object(found)])
    elif is_terminal(sys.stdout):
        _show(found, Screen(console()))
    else:
        _print(found)
    return not found.damage


def _look(store: pagestore.Store, version: pagestore.Version) -> Inspected:
    damage: list[str] = []
    layout = store.layout(version, damaged=damage)
    freed = None
    try:
        freed = store.freed_by(version)
    except pagestore.CorruptionError as error:
        damage.append(said(error))
    return Inspected(version, layout, freed, damage)


def _object(found: Inspected) -> dict[str, Any]:
    version, freed = found.version, found.freed
    return {
        "type": "version",
        "id": version.id,
        "parent": version.parent,
        "time": version.time,
        "message": version.message,
        "names": version.names,
        "referred_bytes": found.referred,
        "exclusive_bytes": found.exclusive,
        "freed_bytes": freed.freed_bytes if freed else None,
        "dropped": freed.versions if freed else [],
        "staying": freed.staying.get(version.id) if freed else None,
        "regions": [layout_object(version, part) for part in found.layout.values()],
        "damage": found.damage,
    }


def _print(found: Inspected) -> None:
    version = found.version
    line("version", version.id, version.parent, version.time, version.names, version.message)
    freed = Bytes(found.freed.freed_bytes) if found.freed else None
    line("space", Bytes(found.referred), Bytes(found.exclusive), freed)
    for part in found.layout.values():
        line("region", *layout_row(version, part))
    for what in found.damage:
        line("damage", what)


def _show(found: Inspected, screen: Screen) -> None:
    version = found.version
    names = f"  ({for_eyes(version.names)})" if version.names else ""
    screen.say(("version ", "bold"), (f"{version.id:,}", "bold yellow"), (names, "bold cyan"))
    parent = f"from version {version.parent:,}" if version.parent else "the first that is kept"
    screen.say(f"{for_eyes(version.time)}, {parent}")
    if version.message:
        screen.say(printable(version.message), wrap=True)
    screen.say()
    table(LAYOUT, [layout_row(version, part) for part in found.layout.values()])
    screen.say()
    referred, alone = human_size(found.referred), human_size(found.exclusive)
    screen.say(f"refers to {referred}, of which {alone} are no other version's")
    if found.freed:
        screen.say(_fate(version, found.freed), wrap=True)
    for what in found.damage:
        screen.say((printable(what), "red"), wrap=True)


def _fate(version: pagestore.Version, freed: pagestore.Freed) -> str:
    """What would come of deleting the names of a version."""
    if version.id in freed.staying:
        return f"it would stay without its names: {printable(freed.staying[version.id])}"
    others = len(freed.versions) - 1
    also = f", and {others} that only it keeps" if others else ""
    return f"deleting all its names frees {human_size(freed.freed_bytes)}{also}"
