"""Damaged stores are looked into as far as they can be, and what is damaged is named."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import random
import shutil

import pytest
from click.testing import CliRunner

import pagestore
from pagestore import FormatError, NotFoundError
from pagestore.cli.group import group
from pagestore.directory import ARENA, CATALOG
from pagestore.format import HEAD_OFFSETS, NODE, SUMS, VERSION, seal
from tests.damage import become, directory_in_memory, in_child, small_store
from tools.damage.reseal import load


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    path = tmp_path_factory.mktemp("pristine") / "store"
    small_store(path)
    with pagestore.open(path, "r") as store:
        return path, {version.id: version for version in store.versions()}


@pytest.fixture
def made(pristine):
    with directory_in_memory() as top:
        shutil.copytree(pristine[0], top / "store")
        yield top / "store", pristine[1]


def inspected(path, *options):
    """Exit status and the one object of ``inspect --json``."""
    done = CliRunner().invoke(group, ["inspect", str(path), *options, "--json"])
    assert isinstance(done.exception, SystemExit | None), done.exception
    return done.exit_code, json.loads(done.stdout) if done.stdout else done.stderr


def in_a_child(path, *options):
    """The same, in a process that may die; `in_child` says "signal N" of one that did."""
    said = in_child(lambda: json.dumps(inspected(path, *options)))
    assert said.startswith("["), said
    return json.loads(said)


def assert_true(found, versions, *, stale=False):
    """What is shown of versions is what they are."""
    for shown in found["newest"]:
        true = versions.get(shown["id"])
        assert true is not None or stale, shown
        if true is not None:
            assert shown["message"] == true.message
            assert set(shown["names"]) <= set(true.names) or stale


# ----------------------------------------------------------------------------- single damages


def test_a_whole_store(made):
    path, versions = made
    status, found = in_a_child(path)
    assert (status, found["damage"]) == (0, [])
    assert [v["id"] for v in found["newest"]] == list(versions)
    left = pagestore.remains(path)
    assert (left.versions, left.damage) == (tuple(versions.values()), ())
    assert left.newest == max(versions)
    assert left.files[ARENA] == (path / ARENA).stat().st_size


def test_a_catalog_that_was_cut(made):
    path, versions = made
    whole = (path / CATALOG).read_bytes()
    shown = 0
    for size in range(0, len(whole), 4096):
        (path / CATALOG).write_bytes(whole[:size])
        status, found = in_a_child(path, "-n", "99")
        assert status == 1 or found["damage"] == []
        assert_true(found, versions, stale=True)
        shown += bool(found["newest"])
        assert found["store_id"]
    assert shown


def test_a_catalog_that_is_missing(made):
    path, _ = made
    (path / CATALOG).unlink()
    status, found = in_a_child(path)
    assert status == 1
    assert any("catalog is missing" in what for what in found["damage"])
    assert (found["page_size"], found["newest"]) == (4096, [])


def test_an_arena_that_was_cut_or_is_missing(made):
    path, versions = made
    os.truncate(path / ARENA, 8192)
    for _ in range(2):
        status, found = in_a_child(path)
        assert status == 1
        assert "arena" in found["damage"][0]
        assert [v["id"] for v in found["newest"]] == list(versions)
        (path / ARENA).unlink(missing_ok=True)


@pytest.mark.parametrize("at", [0, 20, 45])
def test_a_superblock_that_is_damaged(made, at):
    path, versions = made
    flip(path / ARENA, at)
    status, found = in_a_child(path)
    assert status == 1
    assert "store_id" not in found
    assert [v["id"] for v in found["newest"]] == list(versions)


def test_what_is_no_store(tmp_path):
    with pytest.raises(NotFoundError):
        pagestore.remains(tmp_path / "nothing")
    with pytest.raises(FormatError):
        pagestore.remains(tmp_path)
    assert inspected(tmp_path)[0] == 128
    (tmp_path / ARENA).write_bytes(b"something else" * 1000)
    with pytest.raises(FormatError):
        pagestore.remains(tmp_path)


def test_a_store_of_a_newer_format(made):
    path, _ = made
    flip(path / ARENA, 8, 2)  # its number
    status, said = inspected(path)
    assert status == 128
    assert "upgrade" in said


def flip(file, at, bits=1):
    raw = bytearray(file.read_bytes())
    raw[at] ^= bits
    file.write_bytes(raw)


# ------------------------------------------------------------------------------------- records


def damaged_record(path, prefix, which):
    """Spoil one record, wherever its bytes stand, in a catalog that LMDB takes for sound."""
    records = load(path / CATALOG)
    key = [k for k in sorted(records) if k[:1] == prefix and len(k) == 9][which]
    value = seal(key, records[key])
    raw = (path / CATALOG).read_bytes()
    assert value in raw
    (path / CATALOG).write_bytes(raw.replace(value, value[:-1] + bytes([value[-1] ^ 1])))
    return key


def test_a_version_that_is_damaged(made):
    path, versions = made
    key = damaged_record(path, VERSION, 1)
    bad = int.from_bytes(key[1:], "big")
    status, found = in_a_child(path)
    assert status == 1
    assert any(f"version {bad} " in what for what in found["damage"])
    assert [v["id"] for v in found["newest"]] == [v for v in versions if v != bad]
    left = pagestore.remains(path)
    assert [v.id for v in left.versions] == [v for v in versions if v != bad]
    assert any(f"version {bad} " in what for what in left.damage)


def test_a_page_of_the_catalog_in_anothers_place(made):
    path, versions = made
    whole = (path / CATALOG).read_bytes()
    pages = [whole[at : at + 4096] for at in range(0, len(whole), 4096)]
    leaves = [i for i, page in enumerate(pages) if i > 1 and page[10:12] == b"\2\0"]
    told = 0
    for here, there in itertools.pairwise(leaves):
        swapped = [*pages]
        swapped[here] = pages[there]
        (path / CATALOG).write_bytes(b"".join(swapped))
        left = pagestore.remains(path)
        told += any(f"page {here} is damaged" in what for what in left.damage)
        assert {v.id: v.message for v in left.versions}.items() <= {
            (v, one.message) for v, one in versions.items()
        } or any("earlier time" in what for what in left.damage)
    assert told


def test_a_page_table_that_is_damaged(made):
    path, versions = made
    damaged_record(path, NODE, -1)  # of the newest version
    status, found = in_a_child(path)
    assert status == 1
    assert any("page-table node" in what for what in found["damage"])
    assert [v["id"] for v in found["newest"]] == list(versions)
    assert found["arena_bytes"] > 0
    states = {version: in_a_child(path, str(version)) for version in versions}
    assert states[max(versions)][0] == 1
    assert states[min(versions)][0] == 0
    [region] = states[max(versions)][1]["regions"]
    assert region["name"] == "b"  # "a" is what was changed last


def test_checksums_that_are_damaged_hurt_nobody_else(made):
    path, _ = made
    damaged_record(path, SUMS, 0)
    assert in_a_child(path)[0] == 0
    done = CliRunner().invoke(group, ["inspect", str(path), "--table", "a"])
    assert done.exit_code == 128
    assert "checksum chunk 0" in done.stderr


# ----------------------------------------------------------------------------------- many flips


@pytest.mark.parametrize("name", [ARENA, CATALOG])
def test_flipped_bits(made, name, record_property):
    """Whatever is flipped: no signal, no traceback; what is shown is true or said to be damaged."""
    path, versions = made
    whole = (path / name).read_bytes()
    rng = random.Random(name)
    count = 60
    head = [*range(0, 64, 7), *HEAD_OFFSETS] if name == ARENA else [*range(0, 200, 23)]
    for at in [*head, *(rng.randrange(len(whole)) for _ in range(count))]:
        raw = bytearray(whole)
        raw[at] ^= 1 << rng.randrange(8)
        (path / name).write_bytes(raw)
        status, found = in_a_child(path, "-n", "99")
        if status == 128:
            assert "upgrade" in found
            continue
        assert status == (1 if found["damage"] else 0)
        assert_true(found, versions, stale=bool(found["damage"]))
        if not found["damage"]:
            assert [v["id"] for v in found["newest"]] == list(versions)
        for line in ("\n".join(found["damage"])).splitlines():
            assert line.isprintable()
    record_property("bad inputs", len(head) + count)


def test_noise_for_a_catalog(made):
    path, _ = made
    rng = random.Random(5)
    for size in (0, 100, 4096, 70_000):
        (path / CATALOG).write_bytes(rng.randbytes(size))
        status, found = in_a_child(path)
        assert (status, found["newest"]) == (1, [])


# -------------------------------------------------------------------------------- who may look


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up privileges")
def test_a_directory_that_may_only_be_read(made):
    path, versions = made
    for file in path.iterdir():
        file.chmod(0o644)
    path.chmod(0o755)
    path.parent.chmod(0o755)
    (path / f"{CATALOG}-lock").chmod(0o666)  # LMDB's readers register there

    def look():
        become(65534)
        with contextlib.redirect_stderr(io.StringIO()):
            return json.dumps(inspected(path))

    status, found = json.loads(in_child(look))
    assert (status, found["damage"]) == (0, [])
    assert [v["id"] for v in found["newest"]] == list(versions)
    assert found["pins"] == []
