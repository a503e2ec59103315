"""The screen of ``pagestore inspect STORE``: the store as a whole, as far as it can be read."""

import itertools
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import asdict, define, field, frozen

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
from pagestore.cli.refs import looking_at, open_store
from pagestore.cli.screen import Screen

_ONCE = (None, None)  # a head's name and version stand on its first line only
MOST = 12  # regions of a head, pins, warnings and damages on a screen
HEADS = 8  # branches whose layout is shown: it costs what each holds


@frozen
class Head:
    """The layout of a branch's newest version."""

    branch: str
    version: pagestore.Version
    layout: Mapping[str, pagestore.RegionLayout]


@define
class Overview:
    """What could be read of a store; `damage` says what could not."""

    path: Path
    stats: pagestore.Stats | None = None
    remains: pagestore.Remains | None = None
    """If the store cannot be opened."""
    heads: list[Head] = field(factory=list)
    newest: list[pagestore.Version] = field(factory=list)
    damage: list[str] = field(factory=list)

    def facts(self) -> dict[str, Any]:
        """What is known of the store as a whole."""
        if self.stats is not None:
            return asdict(self.stats, recurse=False)
        known = asdict(self.remains, recurse=False) if self.remains else {}
        left = {name: known.get(name) for name in ("store_id", "created", "page_size")}
        return {name: value for name, value in left.items() if value is not None}


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
    found = Overview(path)
    try:
        with open_store(path, "r") as store:
            found.newest = store.versions(number, damaged=found.damage)
            for look in (_look_at_whole, _look_at_heads):
                try:
                    look(store, found)
                except pagestore.CorruptionError as error:
                    found.damage.append(said(error))
    except (pagestore.CorruptionError, pagestore.FormatError) as error:
        found.remains = pagestore.remains(path)
        found.newest = list(found.remains.versions[-number:]) if number else []
        found.damage = [said(error), *found.remains.damage]
    found.damage = list(dict.fromkeys(found.damage))
    return found


def _look_at_whole(store: pagestore.Store, found: Overview) -> None:
    found.stats = store.stats()


def _look_at_heads(store: pagestore.Store, found: Overview) -> None:
    others = (name for name in store.branches if name != "main")
    for branch in itertools.chain(["main"], itertools.islice(others, HEADS - 1)):
        try:
            with looking_at(store, branch) as version:
                layout = store.layout(version, damaged=found.damage)
        except pagestore.NotFoundError:  # deleted since it was listed
            continue
        found.heads.append(Head(branch, version, layout))


# ------------------------------------------------------------------------------- for programs


def _object(found: Overview) -> dict[str, Any]:
    return {
        "type": "store",
        "path": str(found.path),
        **found.facts(),
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
    for name, value in found.facts().items():
        if name not in ("pins", "warnings"):
            yield "store", name, value
    for pin in found.stats.pins if found.stats else ():
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
    if found.remains:
        _show_remains(found.remains, screen)
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
            for text in texts[:MOST]:
                screen.say((printable(text), style), wrap=True)
            if len(texts) > MOST:
                screen.say((f"… {len(texts) - MOST:,} more", "dim"))


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


def _show_remains(remains: pagestore.Remains, screen: Screen) -> None:
    if remains.store_id and remains.created:
        screen.say(f"id {remains.store_id}, created {for_eyes(remains.created)}")
    files = [f"{name} {_size(size)}" for name, size in remains.files.items()]
    screen.say(f"{', '.join(files)}")
    screen.say(f"{len(remains.versions):,} versions can be read")
    if remains.newest is not None:
        screen.say(f"the newest version that the arena saw is {remains.newest:,}")


def _show_heads(found: Overview, screen: Screen) -> None:
    more = found.stats.branches - len(found.heads) if found.stats else 0
    screen.heading("heads", f"{more:,} more branches" if more > 0 else "")
    columns = {"branch": "cyan", "version": "yellow", **LAYOUT}
    table(
        columns,
        (
            (*(_ONCE if i else (head.branch, head.version.id)), *layout_row(head.version, part))
            for head in found.heads
            for i, part in enumerate(itertools.islice(head.layout.values(), MOST))
        ),
    )
    hidden = sum(max(0, len(head.layout) - MOST) for head in found.heads)
    if hidden:
        screen.say((f"… {hidden:,} more regions", "dim"))


def _show_pins(pins: tuple[pagestore.Pinned, ...], screen: Screen) -> None:
    screen.heading("pins")
    for pin in pins[:MOST]:
        age = f" for {_age(pin.process_started)}" if pin.process_started else ""
        who = f"process {pin.process}{age}  " if pin.process else "a process that is not told"
        screen.say((f"{pin.version:>8,}", "yellow"), f"  {who}{printable(pin.command)}")
    if len(pins) > MOST:
        screen.say((f"… {len(pins) - MOST:,} more", "dim"))


def _age(start: datetime) -> str:
    seconds = max(0, int((datetime.now(UTC) - start).total_seconds()))
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds >= size or size == 1:
            number = seconds // size
            return f"{number} {unit}{'' if number == 1 else 's'}"
    raise AssertionError


def _size(size: int) -> str:
    return for_eyes(Bytes(size))
