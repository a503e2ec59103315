"""The documents say what is so: examples run, links lead somewhere, tables equal the code.

A table of docs/format.md has a comment above it that says what it describes. Numbers stand in the
document and in the code, and nowhere else: what is compared here is packed by the code itself.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import io
import os
import re
import shlex
import struct
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import xxhash

import pagestore
from pagestore import (
    catalog,
    compact,
    draft,
    engine,
    format,
    pins,
    space,
    wiring,
    workspace,
)
from pagestore.format import (
    CatalogSeal,
    Extents,
    HeadCopy,
    Meta,
    NameRecord,
    NodeId,
    NodeRef,
    RegionId,
    RegionRecord,
    Superblock,
    Table,
    VersionId,
    VersionRecord,
)
from pagestore.pagetable import compare, nodes, painted, table

ROOT = Path(__file__).resolve().parent.parent
DOCS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FORMAT = ROOT / "docs" / "format.md"
DESIGN = ROOT / "docs" / "design.md"


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path: Path, language: str) -> list[tuple[int, str]]:
    """Line number and text of each fenced block of a language."""
    found, inside, start, lines = [], "", 0, []
    for number, line in enumerate(text_of(path).splitlines(), start=1):
        if line.startswith("```"):
            if inside:
                if inside == language:
                    found.append((start, "\n".join(lines) + "\n"))
                inside = ""
            else:
                inside, start, lines = line[3:].strip() or "text", number + 1, []
        elif inside:
            lines.append(line)
    assert not inside, f"{label(path)}:{start}: a block does not end"
    return found


def prose(path: Path) -> str:
    """The document without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text_of(path), flags=re.M | re.S)


# ------------------------------------------------------------------------------------ examples


@pytest.mark.parametrize("path", [p for p in DOCS if blocks(p, "python")], ids=label)
def test_examples_run(path, tmp_path, monkeypatch):
    if "pagestore.sqlite" in text_of(path):
        pytest.importorskip("apsw")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    with redirect_stdout(io.StringIO()):
        for line, block in blocks(path, "python"):
            # as many empty lines as stand before it: a traceback then names the right one
            code = compile("\n" * (line - 1) + block, str(path), "exec")
            exec(code, namespace)
    for store in sorted(p.parent for p in tmp_path.glob("*/arena")):
        with pagestore.open(store) as opened:
            assert list(opened.check(data=True)) == [], store.name


def test_readme_has_an_example():
    assert blocks(ROOT / "README.md", "python")


# ------------------------------------------------------------------------------- command line


def commands(path: Path) -> list[str]:
    """Lines of shell blocks that call `pagestore`."""
    lines = (line.strip() for _, block in blocks(path, "sh") for line in block.splitlines())
    return [line for line in lines if line.startswith("pagestore ")]


def test_commands_shown_exist():
    pytest.importorskip("click")
    pytest.importorskip("rich")
    run = subprocess.run(
        [sys.executable, "-m", "pagestore.cli", "--help"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    known = set(re.findall(r"^  ([a-z]+)  ", run.stdout.partition("Commands:")[2], re.M))
    shown = {line.split()[1] for path in DOCS for line in commands(path)}
    assert shown <= known
    assert {line.split()[1] for line in commands(ROOT / "README.md")} >= {"put", "get", "log"}


def test_command_lines_of_the_readme_run(tmp_path):
    """In order, in one directory, with the file that they start from."""
    pytest.importorskip("click")
    pytest.importorskip("rich")
    np.save(tmp_path / "prices.npy", np.arange(4096.0).reshape(8, 512))
    for line in commands(ROOT / "README.md"):
        words = shlex.split(line, comments=True)[1:]
        if words[0] == "demo":
            continue
        run = subprocess.run(
            [sys.executable, "-m", "pagestore.cli", *words],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert run.returncode == 0, line + "\n" + run.stderr


def test_make_targets_shown_exist():
    makefile = text_of(ROOT / "Makefile")
    shown = {
        target
        for path in DOCS
        for target in re.findall(r"\bmake ([a-z]+)(?=`|$|  )", text_of(path), re.M)
    }
    assert {"demo", "test"} <= shown
    for target in shown:
        assert re.search(rf"^{target}:", makefile, re.M), f"make {target}"


def test_modules_run_with_python_exist():
    for path in DOCS:
        for module in re.findall(r"python -m ([\w.]+)", text_of(path)):
            if module.split(".")[0] in ("pagestore", "tools"):
                assert importlib.util.find_spec(module), f"{label(path)}: {module}"


# --------------------------------------------------------------------------------------- links


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(path), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("path", DOCS, ids=label)
def test_links_resolve(path):
    links = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(path))
    links += re.findall(r'(?:src|srcset|href)="([^"]+)"', prose(path))
    for link in links:
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), f"{label(path)}: {link}"
        assert not anchor or anchor in anchors(file), f"{label(path)}: {link}"


def test_every_document_is_linked():
    linked = {ROOT / "README.md"}
    for path in DOCS:
        for link in re.findall(r"\]\(([^)#\s]+)", prose(path)):
            if "://" not in link:
                linked.add((path.parent / link).resolve())
    assert set(DOCS) <= linked


def test_pictures_are_well_formed_and_readable_in_the_dark():
    pictures = list((ROOT / "docs" / "img").glob("*.svg"))
    assert pictures
    for path in pictures:
        root = ElementTree.parse(path).getroot()
        assert root.tag.endswith("svg")
        assert root.get("viewBox"), path.name
        assert "prefers-color-scheme: dark" in path.read_text(), path.name


def test_screenshots_are_small_and_there_for_light_and_dark():
    shots = {path.name: path for path in (ROOT / "docs" / "img").glob("*.png")}
    assert shots
    for name, path in shots.items():
        assert path.read_bytes().startswith(b"\x89PNG"), name
        assert path.stat().st_size < 200_000, name
        assert name.replace("light", "dark") in shots
        assert name.replace("dark", "light") in shots


# -------------------------------------------------------------------------------------- tables


Rows = list[list[str]]


@functools.cache
def tables(path: Path) -> dict[str, tuple[list[str], Rows]]:
    """Heading cells and rows of every table that has a comment above it; by that comment."""
    found: dict[str, tuple[list[str], Rows]] = {}
    lines = text_of(path).splitlines()
    for i, line in enumerate(lines):
        if match := re.fullmatch(r"<!-- table: (.+) -->", line):
            body = []
            for row in lines[i + 1 :]:
                if not row.startswith("|"):
                    break
                body.append([cell.strip() for cell in row.strip().strip("|").split("|")])
            assert len(body) > 2, f"{label(path)}: no table under {line}"
            assert match[1] not in found, f"{label(path)}: two tables {match[1]!r}"
            found[match[1]] = body[0], body[2:]
    return found


def rows_of(name: str, path: Path = FORMAT) -> list[dict[str, str]]:
    heading, rows = tables(path)[name]
    for row in rows:
        assert len(row) == len(heading), f"{name}: {row}"
    return [dict(zip(heading, row, strict=True)) for row in rows]


def quoted(cell: str) -> str:
    """What stands between backquotes."""
    match = re.match(r"`([^`]+)`", cell)
    assert match, cell
    return match[1]


def number(cell: str) -> int:
    """A number as documents write it: 4096, 2**18, 2**16 - 1."""
    match = re.fullmatch(r"(\d+)(?:\*\*(\d+))?(?: - (\d+))?", cell.strip("`").replace(",", ""))
    assert match, cell
    base, power, less = match.groups()
    return int(base) ** int(power or 1) - int(less or 0)


def test_every_table_of_the_format_is_compared():
    count = len(re.findall(r"^\| ?-", text_of(FORMAT), re.M))
    assert set(tables(FORMAT)) == COMPARED | set(LAYOUTS)
    assert count == len(tables(FORMAT)), "a table has no comment that says what it describes"


# Each layout: bytes that the code packed, and what every field of them must read as. All values
# differ, so that fields that changed places are noticed.

REGION = RegionRecord(
    RegionId(0x1011), "näme", np.dtype([("a", "<f8"), ("b", "<i4", (3,))]), (3, 5, 7),
    Table(NodeRef(NodeId(0x2021), VersionId(0x3031)), 4), 0x5051, 0x6061,
)  # fmt: skip
LONE = VersionRecord(
    VersionId(0x0102), VersionId(0x0304), -0x0506, True, "a nöte", {"näme": REGION}
)
EXTENTS = Extents(
    *(np.array([v], np.int64) for v in (0x1_2345, 0x2_0001, 0x3456_789A, 0x4567_89AB))
)
RUN_REFS = np.array([(0x71, 0x72, 0x73), (0x74, 0x75, 0x76)], format.RUN_REF)
CHILDREN = np.zeros(format.FAN, format.BRANCH_REF)
CHILDREN[:] = [(i + 0x81, i + 0x91) for i in range(format.FAN)]
SLOTS = np.array([(0x0A0B, 0x0C0D), (0x0E0F, 0x1213)], format.RUN)

Layout = tuple[bytes, dict[str, Any], int]


def superblock() -> Layout:
    raw = Superblock(8192, bytes(range(16)), 0x0102030405).pack()
    fields = {
        "magic": format.MAGIC, "format": format.FORMAT_VERSION, "page_size": 8192,
        "store_id": bytes(range(16)), "created": 0x0102030405, "mark": format.INITIALISED,
        "checksum": xxhash.xxh3_64_digest(raw[:-8]),
    }  # fmt: skip
    return raw, fields, len(raw)


def head_copy() -> Layout:
    raw = HeadCopy(VersionId(0x11), 0x22, 0x33, bytes(range(16))).pack()
    fields = {
        "version": 0x11, "next_version": 0x22, "transaction": 0x33, "root": bytes(range(16)),
        "checksum": xxhash.xxh3_64_digest(raw[:-8]),
    }  # fmt: skip
    return raw, fields, len(raw)


def catalog_seal() -> Layout:
    raw = CatalogSeal(0x11, bytes(range(16))).pack()
    digest = xxhash.xxh3_64_digest(raw[:-8])
    return raw, {"size": 0x11, "digest": bytes(range(16)), "checksum": digest}, len(raw)


def sealed_value() -> Layout:
    raw = format.seal(b"A", b"payload")
    return raw, {"checksum": xxhash.xxh3_64_digest(b"Apayload"), "payload": b"payload"}, 8


def meta() -> Layout:
    raw = Meta(bytes(range(16)), 8192, True, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88).pack()
    fields = {
        "format": format.FORMAT_VERSION, "store_id": bytes(range(16)), "page_size": 8192,
        "keep_all": 1, "next_version": 0x11, "next_node": 0x22, "next_region": 0x33,
        "next_number": 0x44, "slots": 0x55, "moves": 0x66, "transaction": 0x77, "records": 0x88,
    }  # fmt: skip
    return raw, fields, len(raw)


def version() -> Layout:
    message, region = "a nöte".encode(), REGION.pack()
    raw = LONE.pack()
    assert raw.endswith(message + region)
    fields = {
        "id": 0x0102, "parent": 0x0304, "time": -0x0506, "keep": 1, "root": LONE.root(),
        "message_size": len(message), "regions": 1,
    }  # fmt: skip
    return raw, fields, len(raw) - len(message + region)


def region() -> Layout:
    raw, name, dtype = REGION.pack(), "näme".encode(), format.dtype_text(REGION.dtype).encode()
    rest = struct.pack("<3Q", 3, 5, 7) + name + dtype
    assert raw.endswith(rest)
    assert ast.literal_eval(dtype.decode()) == np.lib.format.dtype_to_descr(REGION.dtype)
    fields = {
        "id": 0x1011, "root_node": 0x2021, "root_birth": 0x3031, "height": 4, "pages": 0x5051,
        "content": 0x6061, "name_size": len(name), "dtype_size": len(dtype), "axes": 3,
    }  # fmt: skip
    return raw, fields, len(raw) - len(rest)


def name() -> Layout:
    raw = NameRecord(VersionId(0x11), 0x22, "nöte").pack()
    return raw, {"version": 0x11, "time": 0x22, "message": "nöte".encode()}, 16


def leaf() -> Layout:
    raw = format.pack_leaf(EXTENTS, RUN_REFS)
    assert raw.endswith(RUN_REFS.tobytes() + EXTENTS.pack())
    fields = {"kind": format.KIND_LEAF, "zero": 0, "runs": 2, "inline": 1}
    return raw, fields, len(raw) - RUN_REFS.nbytes - 16


def run_reference() -> Layout:
    return RUN_REFS[:1].tobytes(), {"node": 0x71, "birth": 0x72, "count": 0x73}, RUN_REFS.itemsize


def run() -> Layout:
    raw = format.pack_run(EXTENTS)
    return raw, {"kind": format.KIND_RUN, "zeros": bytes(7), "extents": EXTENTS.pack()}, 8


def branch() -> Layout:
    raw = format.pack_branch(CHILDREN)
    fields = {"kind": format.KIND_BRANCH, "zeros": bytes(7), "children": CHILDREN.tobytes()}
    return raw, fields, len(raw)


def child() -> Layout:
    return CHILDREN[:1].tobytes(), {"node": 0x81, "birth": 0x91}, CHILDREN.itemsize


def slot_list() -> Layout:
    raw = format.pack_runs(SLOTS)
    assert raw.endswith(SLOTS.tobytes())
    return raw, {"count": 2}, len(raw) - SLOTS.nbytes


def slot_run() -> Layout:
    return SLOTS[:1].tobytes(), {"start": 0x0A0B, "length": 0x0C0D}, SLOTS.itemsize


LAYOUTS: dict[str, Callable[[], Layout]] = {
    "superblock": superblock, "head copy": head_copy, "catalog seal": catalog_seal,
    "sealed value": sealed_value, "meta": meta,
    "version": version, "region": region, "name": name, "leaf": leaf,
    "run reference": run_reference, "run": run, "branch": branch, "child": child,
    "slot list": slot_list, "slot run": slot_run,
}  # fmt: skip
COMPARED = {
    "files", "constants", "head places", "keys", "extent", "chunks", "locks", "limits",
}  # fmt: skip
SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "i64": 8, "xxh3": 8}


def agrees(meaning: str, at: int, number: int, piece: bytes) -> None:
    """What the words say in numbers is so too."""
    if meaning.isdigit():
        assert int(meaning) == number
    if match := re.fullmatch(r"of bytes 0 to (\d+)", meaning):
        assert int(match[1]) == at - 1
    if match := re.match(r"`(\w+)`(?:;| and a byte (\d))", meaning):
        assert match[1].encode() + bytes(int(d) for d in (match[2] or "")) == piece


@pytest.mark.parametrize("what", LAYOUTS)
def test_layout(what):
    raw, fields, fixed = LAYOUTS[what]()
    at = 0
    assert [row["field"] for row in rows_of(what)] == list(fields)
    for row in rows_of(what):
        field, kind = row["field"], row["type"]
        assert int(row["offset"]) == at, field
        if not row["size"]:  # as long as it is: the last
            assert raw[at:] == fields[field]
            break
        size = int(row["size"])
        assert size == SIZES.get(kind, size), field
        piece = raw[at : at + size]
        number = int.from_bytes(piece, "little", signed=kind[0] == "i")
        assert (number if kind[0] in "ui" else piece) == fields[field], field
        agrees(row["meaning"], at, number, piece)
        at += size
    assert at == fixed


def test_extents():
    words = struct.unpack("<2Q", EXTENTS.pack())
    found = {}
    for row in rows_of("extent"):
        low, bits = int(row["lowest bit"]), int(row["bits"])
        found[row["field"]] = words[int(row["word"])] >> low & (1 << bits) - 1
    assert found == {
        "page": 0x1_2345,
        "slot": 0x3456_789A,
        "length - 1": 0x2_0000,
        "birth": 0x4567_89AB,
    }
    assert [int(row["lowest bit"]) + int(row["bits"]) for row in rows_of("extent")] == [18, 64] * 2


def test_constants():
    for row in rows_of("constants"):
        module, _, constant = quoted(row["constant"]).rpartition(".")
        value = getattr(importlib.import_module(f"pagestore.{module}"), constant)
        assert value == number(row["value"]), row
        assert re.findall(r"2\*\*(\d+)", row["meaning"]) in ([], [str(value)]), row


def test_head_places():
    places = {
        int(row["transaction % 2"]): int(row["byte of the arena"]) for row in rows_of("head places")
    }
    assert places == dict(enumerate(format.HEAD_OFFSETS))


def test_files(tmp_path):
    with pagestore.open(tmp_path / "s.ps"):
        there = {path.name for path in (tmp_path / "s.ps").iterdir()}
    assert {quoted(row["file"]) for row in rows_of("files")} == there
    assert there - {"catalog-lock"} == {engine.ARENA, engine.CATALOG, engine.PINS, engine.BALLAST}


def test_keys():
    shown = {}
    for row in rows_of("keys"):
        parts = re.findall(r"`(\w)`|(\w+)", row["key"])
        shown["".join(letter or {"name": "*"}.get(word, "#") for letter, word in parts)] = row
    samples = {
        format.META: "A",
        format.name_key(format.BRANCH, "n"): "B*",
        format.number_key(format.UNKEPT, 7): "C#",
        format.number_key(format.RESERVED, 7): "D#",
        format.number_key(format.SPACE_LOG, 7): "E#",
        format.number_key(format.FREE, 7): "F#",
        format.number_key(format.SUMS, 7): "K#",
        format.number_key(format.NODE, 7): "N#",
        format.name_key(format.SNAPSHOT, "n"): "S*",
        format.number_key(format.VERSION, 7): "V#",
        format.child_key(VersionId(7), VersionId(8)): "V#c#",
        format.named_key(VersionId(7), format.BRANCH, "n"): "V#B*",
        format.named_key(VersionId(7), format.SNAPSHOT, "n"): "V#S*",
    }
    assert sorted(samples.values()) == sorted(shown)
    for key, shape in samples.items():
        row = shown[shape]
        fixed, _, more = row["size"].partition(" + ")
        assert len(key) == int(fixed) + (1 if more else 0), shape
        last = re.findall(r"[A-Za-z]", shape)[-1]
        assert getattr(format, quoted(row["constant"])) == last.encode(), shape
    letters = {
        value for value in vars(format).values() if isinstance(value, bytes) and len(value) == 1
    }
    assert {re.findall(r"[A-Za-z]", shape)[-1].encode() for shape in shown} == letters
    assert format.number_key(b"K", 0x0102)[1:] == (0x0102).to_bytes(8, "big")


def test_chunks():
    sizes = {row["chunk"]: (int(row["size"]), row["holds"]) for row in rows_of("chunks")}
    sums, free = sizes["checksum chunk"], sizes["free-space chunk"]
    assert sums[0] == format.SUMS_CHUNK * 8
    assert f" {format.SUMS_CHUNK} slots" in sums[1]
    assert free[0] == format.FREE_CHUNK // 8
    assert f" {format.FREE_CHUNK} slots" in free[1]


def test_locks():
    shown = [quoted(row["byte"]) for row in rows_of("locks")]
    assert shown[0] == "v"
    assert number(shown[1]) == pins._OPEN
    base, _, rest = shown[2].partition(" + ")
    assert (number(base), rest) == (pins._RESERVATIONS, "n")


def test_limits():
    limits = {row["what"]: number(quoted(row["limit"])) for row in rows_of("limits")}
    high = 64 - format.LEAF_BITS
    most_runs = np.iinfo(np.uint16).max
    assert limits == {
        "pages in a region": workspace.MAX_PAGES,
        "slots in an arena, with slot 0": 1 << high,
        "version ids": 1 << high,
        "runs in a leaf": most_runs,
        "axes of a shape": 64,
        "bytes of a dtype's text": np.iinfo(np.uint16).max,
        "bytes of the catalog": catalog.MAP_SIZE,
        "LMDB readers at once": catalog.MAX_READERS,
    }
    refs = np.zeros(most_runs, format.RUN_REF)
    assert len(format.unpack_leaf(format.pack_leaf(Extents.empty(), refs))[1]) == most_runs
    with pytest.raises(struct.error):
        format.pack_leaf(Extents.empty(), np.zeros(most_runs + 1, format.RUN_REF))


D = "docs/decisions/"
IN_WORDS = {
    "docs/format.md": [f"{space.LOG_RECORDS} records or {space.LOG_RUNS:,} runs"],
    "docs/design.md": [
        f"branches with {format.FAN} children over leaves of 2**{format.LEAF_BITS} pages",
        f"has more than {table.INLINE_MAX},",
        f"within {painted.DENSE_PAGES * 16 >> 20} MiB",
        f"{nodes.CACHED_EXTENTS * 32 >> 20} MiB of decoded nodes",
        f"every {workspace.CHECK_SECONDS * 1000:.0f} ms",
        f"from {space.GROW_LEAST:,} to {space.GROW_MOST:,} slots",
    ],
    D + "001-page-table.md": [
        f"Branches have {format.FAN} children. A leaf spans 2**{format.LEAF_BITS} pages",
        f"past {table.INLINE_MAX} of them",
        f"at most {painted.DENSE_PAGES * 16 >> 20} MiB",
        f"past {compare.WORTH_COMPARING:,} of those",
    ],
    D + "003-free-space.md": [
        f"chunks of {format.FREE_CHUNK:,} slots",
        f"At {space.LOG_RECORDS} records or {space.LOG_RUNS:,} runs",
        f"shorter than {space.SHORT_RUN} slots",
        f"at least {space.LOOK_LEAST:,}",
        f"at least {space.GROW_LEAST:,} slots, at most {space.GROW_MOST:,}",
    ],
    D + "004-fragmented-views.md": [
        f"Up to {wiring.FEW} pieces",
        f"gaps of up to {wiring.BRIDGE_GAP} pages",
        f"if {wiring.LONG} pages or more",
    ],
    D + "005-room-in-the-catalog.md": [f"between half and {catalog.RESERVE >> 20} MiB of"],
    D + "025-written-ahead.md": [
        f"commit of at most {space.SMALL} pages grows by {space.GROW_LEAST} slots",
        f"0.5 to {catalog.RESERVE >> 20} MiB of them",
    ],
    D + "006-memory-after-a-commit.md": [
        f"more than {draft.FLUSH_PIECES:,} pieces",
        f"every {workspace.CHECK_SECONDS * 1000:.0f} ms",
    ],
    D + "012-moving-pages.md": [
        f"at least {compact.ROUND_BYTES >> 20} MiB, or a {compact.MOST_ROUNDS}th of the arena"
    ],
}


@pytest.mark.parametrize("path", IN_WORDS)
def test_constants_in_words(path):
    words = " ".join(text_of(ROOT / path).split())
    for phrase in IN_WORDS[path]:
        assert phrase in words


# -------------------------------------------------------------------------------------- layers


def test_layers_are_those_of_the_contract():
    config = tomllib.loads(text_of(ROOT / "pyproject.toml"))
    contract = config["tool"]["importlinter"]["contracts"][0]
    wanted = [set(re.findall(r"\w+", layer)) for layer in contract["layers"]]
    shown = [set(re.findall(r"`(\w+)`", row["modules"])) for row in rows_of("layers", DESIGN)]
    assert shown == wanted


def test_invariants_are_those_that_check_reports():
    shown = set(re.findall(r"^- \*\*(I\d)\*\*", text_of(DESIGN), re.M))
    source = (ROOT / "pagestore" / "verify.py").read_text()
    assert shown == {f"I{i}" for i in range(1, 7)}
    assert set(re.findall(r'Finding\("(I\d)"', source)) <= shown


# ------------------------------------------------------------------------------------ decisions


def test_decisions_have_their_parts():
    paths = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = [int(path.name[:3]) for path in paths]
    assert len(set(numbers)) == len(numbers)  # a gap is a decision that is being written
    for path in paths:
        assert re.findall(r"^## (.+)$", text_of(path), re.M) == list(PARTS), label(path)
        assert text_of(path).startswith(f"# {path.name[:3]} "), label(path)


PARTS = ("Problem", "Decision", "Alternatives", "Caveats")


@pytest.mark.parametrize("path", DOCS, ids=label)
def test_no_path_of_one_machine(path):
    for prefix in ("/tmp/", "/home/", "/root/"):
        assert prefix not in text_of(path)
