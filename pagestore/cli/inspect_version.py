"""The screen of ``pagestore inspect STORE REF``: one version, region by region."""

import sys
from typing import Any

import numpy as np

import pagestore
from pagestore.cli import as_json
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


def show_version(store: pagestore.Store, version: pagestore.Version, json: bool) -> None:
    """Show a version, and what deleting all its names would free."""
    layout = store.layout(version)
    freed = store.freed_by(version)
    referred = sum(part.referred_bytes for part in layout.values())
    exclusive = sum(part.exclusive_bytes for part in layout.values())
    if json:
        as_json.write([{
            "type": "version",
            "id": version.id,
            "parent": version.parent,
            "time": version.time,
            "message": version.message,
            "names": version.names,
            "referred_bytes": referred,
            "exclusive_bytes": exclusive,
            "freed_bytes": freed.freed_bytes,
            "dropped": freed.versions,
            "staying": freed.staying.get(version.id),
            "regions": [layout_object(version, part) for part in layout.values()],
        }])  # fmt: skip
        return
    rows = [layout_row(version, part) for part in layout.values()]
    if not is_terminal(sys.stdout):
        line("version", version.id, version.parent, version.time, version.names, version.message)
        line("space", Bytes(referred), Bytes(exclusive), Bytes(freed.freed_bytes))
        for row in rows:
            line("region", *row)
        return
    screen = Screen(console())
    names = f"  ({for_eyes(version.names)})" if version.names else ""
    screen.say(("version ", "bold"), (f"{version.id:,}", "bold yellow"), (names, "bold cyan"))
    parent = f"from version {version.parent:,}" if version.parent else "the first that is kept"
    screen.say(f"{for_eyes(version.time)}, {parent}")
    if version.message:
        screen.say(printable(version.message), wrap=True)
    screen.say()
    table(LAYOUT, rows)
    screen.say()
    screen.say(
        f"refers to {human_size(referred)}, of which {human_size(exclusive)} are no other version's"
    )
    screen.say(_fate(version, freed), wrap=True)


def _fate(version: pagestore.Version, freed: pagestore.Freed) -> str:
    """What would come of deleting the names of a version."""
    if version.id in freed.staying:
        return f"it would stay without its names: {printable(freed.staying[version.id])}"
    others = len(freed.versions) - 1
    also = f", and {others} that only it keeps" if others else ""
    return f"deleting all its names frees {human_size(freed.freed_bytes)}{also}"
