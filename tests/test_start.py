"""Starting: what it takes to import the package and to open a store."""

import subprocess
import sys

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
