"""Starting: what it takes to import the package and to open a store."""

import subprocess
import sys

import pytest
import xxhash

import pagestore
from pagestore.catalog import HASHED_AT_ONCE, seal_of

SLOW = {
    "asyncio", "dataclasses", "hashlib", "json", "logging", "pathlib", "secrets", "shutil",
    "subprocess", "urllib",
}  # fmt: skip
# walking a damaged catalog, checking, counting and compacting
RARE = {
    "lmdb.verify",
    *(
        f"pagestore.{m}"
        for m in (
            "compact",
            "cowlist",
            "dense",
            "freed",
            "layout",
            "lineage",
            "notebook",
            "sharing",
            "lockers",
            "stats",
            "structure",
            "stranger",
            "verify",
            "wreck",
        )
    ),
}


def loaded_by_importing_it() -> set[str]:
    """Modules that importing pagestore loads, and NumPy does not."""
    script = "import numpy, sys; n = {*sys.modules}; import pagestore; print(*{*sys.modules} - n)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_importing_loads_little_that_numpy_does_not():
    """Each of these costs as much as all modules of the package together."""
    loaded = loaded_by_importing_it()
    packages = {name.partition(".")[0] for name in loaded}
    needed = {"attr", "lmdb", "pagestore", "xxhash"}
    assert packages - sys.stdlib_module_names - {"numpy"} == needed
    assert not packages & SLOW
    assert not loaded & RARE


def test_what_is_imported_later_is_there():
    assert set(pagestore.__all__) <= set(dir(pagestore))
    for name in pagestore.__all__:
        assert getattr(pagestore, name).__module__.startswith("pagestore.")
    with pytest.raises(AttributeError, match="no_such"):
        _ = pagestore.no_such


@pytest.mark.parametrize("size", [0, 1, HASHED_AT_ONCE, 2 * HASHED_AT_ONCE + 4096])
def test_the_seal_is_of_every_byte(tmp_path, size):
    contents = (xxhash.xxh3_128_digest(b"seed") * (size // 16 + 1))[:size]
    (tmp_path / "file").write_bytes(contents)
    seal = seal_of(tmp_path / "file")
    assert (seal.size, seal.digest) == (size, xxhash.xxh3_128_digest(contents))
