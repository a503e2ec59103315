"""The screen of ``pagestore inspect STORE``: the store as a whole, as far as it can be read."""

import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from attrs import asdict, field, frozen

import pagestore
from pagestore.cli import as_json
from pagestore.cli.failure import said
from pagestore.cli.graph import show_graph, version_object
from pagestore.cli.inspect_version import LAYOUT, layout_object, layout_row
from pagestore.cli.output import (
    Bytes,
    Cell,
    console,
    for_eyes,
    is_terminal,
    line,
    printable,
    table,
)
from pagestore.cli.refs import open_store
from pagestore.cli.screen import Screen

_ONCE = (None, None)  # a head's name and version stand on its first line only
HEADS = 8  # branches whose layout is shown: it costs what each holds

Found = TypeVar("Found")


@frozen
class Head:
    """The layout of a branch's newest version."""

    branch: str
    version: pagestore.Version
    layout: Mapping[str, pagestore.RegionLayout]


@frozen
class Overview:
    """What could be read of a store; what could not is None or missing, and in `damage`."""

    path: Path
    stats: pagestore.Stats | None = None
    heads: list[Head] = field(factory=list)
    newest: list[pagestore.Version] = field(factory=list)
    damage: list[str] = field(factory=list)

    def try_to(self, look: Callable[[], Found]) -> Found | None:
        """Return what a look finds, or note why it finds nothing."""
        try:
            return look()
        except pagestore.CorruptionError as error:
            if said(error) not in self.damage:
                self.damage.append(said(error))
            return None


def show_store(path: Path, number: int, json: bool) -> bool:
    """Show a store; say whether all of it could be read."""
    found = _look(path, number)
    if json:
        as_json.write([_object(found)])
    elif is_terminal(sys.stdout):
        _show(found, Screen(console()))
    else:
        for row in _rows(found):
            line(*row)
    return not found.damage


def _look(path: Path, number: int) -> Overview:
    damage: list[str] = []
    try:
        store = open_store(path, "r")
    except pagestore.CorruptionError as error:
        return Overview(path, damage=[said(error)])
    with store:
        newest = store.versions(number, damaged=damage)
        found = Overview(path, newest=newest, damage=list(dict.fromkeys(damage)))
        heads = [
            head
            for branch in _first(store.branches, HEADS, found)
            if (head := found.try_to(lambda branch=branch: _head(store, branch)))  # type: ignore[misc]
        ]
        return Overview(path, found.try_to(store.stats), heads, newest, found.damage)


def _first(names: Mapping[str, Any], most: int, found: Overview) -> list[str]:
    """The first names, `main` before all others."""

    def look() -> list[str]:
        chosen = ["main"]
        for name in names:
            if len(chosen) == most:
                break
            if name != "main":
                chosen.append(name)
        return chosen

    return found.try_to(look) or []


def _head(store: pagestore.Store, branch: str) -> Head:
    version = store.branches[branch]
    return Head(branch, version, store.layout(version))


# ------------------------------------------------------------------------------- for programs


def _object(found: Overview) -> dict[str, Any]:
    return {
        "type": "store",
        "path": str(found.path),
        **(asdict(found.stats, recurse=False) if found.stats else {}),
        "heads": [
            {
                "branch": head.branch,
                "version": head.version.id,
                "regions": [layout_object(head.version, part) for part in head.layout.values()],
            }
            for head in found.heads
        ],
        "newest": [version_object(version) for version in found.newest],
        "damage": found.damage,
    }


def _rows(found: Overview) -> Iterator[tuple[Cell, ...]]:
    if found.stats:
        for name, value in asdict(found.stats, recurse=False).items():
            if name not in ("pins", "warnings"):
                yield "store", name, value
        for pin in found.stats.pins:
            yield "pin", pin.version, pin.process, pin.process_started, pin.command
    for head in found.heads:
        for part in head.layout.values():
            yield "head", head.branch, head.version.id, *layout_row(head.version, part)
    for version in reversed(found.newest):
        yield (
            "version", version.id, version.parent, version.time, version.names, version.message
        )  # fmt: skip
    for warning in found.stats.warnings if found.stats else ():
        yield "warning", warning
    for what in found.damage:
        yield "damage", what


# ---------------------------------------------------------------------------------- for eyes


def _show(found: Overview, screen: Screen) -> None:
    screen.say((printable(str(found.path)), "bold"))
    if found.stats:
        _show_stats(found.stats, screen)
    if found.heads:
        _show_heads(found, screen)
    if found.stats and found.stats.pins:
        _show_pins(found.stats.pins, screen)
    if found.newest:
        screen.heading("newest versions")
        show_graph(reversed(found.newest), screen)
    for what, style, texts in (
        ("warnings", "yellow", found.stats.warnings if found.stats else ()),
        ("damage", "red", found.damage),
    ):
        if texts:
            screen.heading(what)
            for text in texts:
                screen.say((printable(text), style), wrap=True)


def _show_stats(stats: pagestore.Stats, screen: Screen) -> None:
    created = for_eyes(stats.created)
    screen.say(f"format {stats.format}, id {stats.store_id}, created {created}")
    counts = ", ".join(
        f"{number:,} {what}{'' if number == 1 else 'es' if what == 'branch' else 's'}"
        for what, number in (
            ("version", stats.versions), ("snapshot", stats.snapshots), ("branch", stats.branches)
        )
    )  # fmt: skip
    screen.say(f'{counts}; pages of {_size(stats.page_size)}, history "{stats.history}"')
    screen.heading(
        "space", f"{_size(stats.disk_bytes)} on disk, {_size(stats.disk_free_bytes)} left"
    )
    parts = (
        ("referred", stats.referred_bytes - stats.unkept_bytes, "green"),
        ("only pinned", stats.unkept_bytes, "yellow"),
        ("reserved", stats.reserved_bytes, "magenta"),
        ("free", stats.free_bytes, "bright_black"),
    )
    label = f"arena    {_size(stats.arena_bytes):>10}  "
    bar = screen.bar([(size, style) for _, size, style in parts], min(40, screen.width - 24))
    screen.say(label, *bar)
    legend = [(f"  █ {name} {_size(size)}", style) for name, size, style in parts if size]
    screen.say(" " * 19, *legend)
    screen.say(
        f"catalog  {_size(stats.catalog_bytes):>10}  {_size(stats.catalog_used_bytes)} in use"
    )


def _show_heads(found: Overview, screen: Screen) -> None:
    more = found.stats.branches - len(found.heads) if found.stats else 0
    screen.heading("heads", f"{more:,} more branches" if more > 0 else "")
    columns = {"branch": "cyan", "version": "yellow", **LAYOUT}
    table(
        columns,
        (
            (*(_ONCE if i else (head.branch, head.version.id)), *layout_row(head.version, part))
            for head in found.heads
            for i, part in enumerate(head.layout.values())
        ),
    )


def _show_pins(pins: tuple[pagestore.Pinned, ...], screen: Screen) -> None:
    screen.heading("pins")
    for pin in pins[:12]:
        age = f" for {_age(pin.process_started)}" if pin.process_started else ""
        who = f"process {pin.process}{age}  " if pin.process else "a process that is not told"
        screen.say((f"{pin.version:>8,}", "yellow"), f"  {who}{printable(pin.command)}")
    if len(pins) > 12:
        screen.say(f"{len(pins) - 12:,} more", "")


def _age(start: datetime) -> str:
    seconds = max(0, int((datetime.now(UTC) - start).total_seconds()))
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds >= size or size == 1:
            number = seconds // size
            return f"{number} {unit}{'' if number == 1 else 's'}"
    raise AssertionError


def _size(size: int) -> str:
    return for_eyes(Bytes(size))
