"""`python -m tools.bench.conform PEER…`: does a peer do what the protocol says? On small stores."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tools.bench.model import Model
from tools.bench.peers import Lacks, Peer, find, names


def conform(kind: type[Peer], folder: Path, pages: int = 300) -> list[str]:
    """Try everything; return what the peer says that it lacks. Raises where it is wrong."""
    model = Model(pages, 7)
    peer = kind(folder, pages)
    refused: list[str] = []
    model.keys.append(peer.load(model.chunks()))
    peer.close()
    peer.open()
    for count in (0, 1, 4, 50, 4):
        _commit(peer, model, count)
    peer.close()
    peer.open()
    _commit(peer, model, 10)
    if not kind.keeps_old:
        peer.close()
        peer.open()
    for version in (0, 2, 4, len(model.keys) - 1) if kind.keeps_old else (len(model.keys) - 1,):
        check(peer, model, version)
    _other_process(kind, folder, model.keys[-1], refused)
    _try(refused, lambda: check_diff(peer, model, 2, 5))
    _try(refused, lambda: check_diff(peer, model, 3, 3))
    _try(refused, lambda: _branch(peer, model, 3))
    _try(refused, lambda: _delete(kind, folder))
    peer.close()
    return refused


def check(peer: Peer, model: Model, version: int) -> None:
    """Compare a version with what it must hold."""
    reader = peer.reader(model.keys[version])
    pages = model.some(100)
    found = reader.read(pages)
    if found.shape != (len(pages), 4096) or found.dtype != np.uint8:
        raise AssertionError(f"read returned {found.dtype} {found.shape}")
    if not np.array_equal(found, model.rows(version, pages)):
        raise AssertionError(f"version {version} has other pages than were written")
    if reader.scan() != model.total(version):
        raise AssertionError(f"the sum of version {version} is wrong")
    del found
    reader.close()


def check_diff(peer: Peer, model: Model, old: int, new: int) -> None:
    found = peer.diff(model.keys[old], model.keys[new])
    if not np.array_equal(found, model.changed(old, new) if new > old else []):
        raise AssertionError(f"diff of versions {old} and {new}: {found}")


def _commit(peer: Peer, model: Model, count: int) -> None:
    if count:
        peer.change(*model.change(count))
        model.keys.append(peer.commit())
    else:
        peer.commit()


def _branch(peer: Peer, model: Model, version: int) -> None:
    later = (model.keys[-1], model.total(len(model.keys) - 1))
    peer.branch(model.keys[version])
    model.rewind(version)
    _commit(peer, model, 5)
    check(peer, model, len(model.keys) - 1)
    check(peer, model, version)
    reader = peer.reader(later[0])
    if reader.scan() != later[1]:
        raise AssertionError("branching changed a version")
    reader.close()


def _delete(kind: type[Peer], folder: Path) -> None:
    inner = folder / "delete"
    inner.mkdir()
    model = Model(300, 8)
    peer = kind(inner, 300)
    model.keys.append(peer.load(model.chunks()))
    for _ in range(20):
        _commit(peer, model, 100)
    try:
        before = peer.used()
        peer.delete_old()
        peer.give_back()
        check(peer, model, 20)
        if peer.used() > before - 100 * 4096:
            raise AssertionError(f"deleting gave nothing back: {before} to {peer.used()} bytes")
    finally:
        peer.close()


def _other_process(kind: type[Peer], folder: Path, key: str, refused: list[str]) -> None:
    if not kind.start:
        refused.append("no way to start")
        return
    command = [sys.executable, "-c", kind.start, str(folder), key]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    if not 0 <= int(done.stdout) < 256:
        raise AssertionError(f"the start printed {done.stdout!r}")


def _try(refused: list[str], act: Callable[[], object]) -> None:
    try:
        act()
    except Lacks as e:
        refused.append(str(e))


def main() -> int:
    for name in sys.argv[1:] or names():
        with tempfile.TemporaryDirectory(prefix="pagestore-conform-") as folder:
            try:
                refused = conform(find(name), Path(folder))
                print(f"{name}: ok", *refused, sep="; ", flush=True)
            except Lacks as e:
                print(f"{name}: left out: {e}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
