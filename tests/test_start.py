"""Starting: what it takes to import the package and to open a store."""

import subprocess
import sys

import pytest
import xxhash

from pagestore.catalog import HASHED_AT_ONCE, seal_of

SLOW = {"asyncio", "dataclasses", "hashlib", "json", "logging", "secrets", "shutil", "subprocess"}


def loaded_by_importing_it() -> set[str]:
    """Top-level modules that importing pagestore loads, and NumPy does not."""
    script = "import numpy, sys; n = {*sys.modules}; import pagestore; print(*{*sys.modules} - n)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in run.stdout.split()}


def test_importing_loads_little_that_numpy_does_not():
    """Each of these costs as much as all modules of the package together."""
    loaded = loaded_by_importing_it()
    assert loaded - sys.stdlib_module_names - {"numpy"} == {"lmdb", "pagestore", "xxhash"}
    assert not loaded & SLOW


@pytest.mark.parametrize("size", [0, 1, HASHED_AT_ONCE, 2 * HASHED_AT_ONCE + 4096])
def test_the_seal_is_of_every_byte(tmp_path, size):
    contents = (xxhash.xxh3_128_digest(b"seed") * (size // 16 + 1))[:size]
    (tmp_path / "file").write_bytes(contents)
    seal = seal_of(tmp_path / "file")
    assert (seal.size, seal.digest) == (size, xxhash.xxh3_128_digest(contents))
