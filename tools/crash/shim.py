"""Builds `shim.c` on the fly, and talks to it in the process that it was loaded into."""

from __future__ import annotations

import atexit
import ctypes
import enum
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from attrs import frozen

_SOURCE = Path(__file__).with_name("shim.c")


class Fault(enum.IntEnum):
    """What happens at the n-th operation; the numbers are those of shim.c."""

    NONE = 0
    ERROR = 1  # any operation
    SHORT = 2  # a write does half of its work
    SYNC = 3  # a sync fails
    KILL_BEFORE = 4
    KILL_AFTER = 5


@frozen
class Plan:
    """Which operation fails, and how.

    Attributes
    ----------
    fault : Fault
    at : int
        The first one that fails, counted from 1 among those that the fault can meet.
    forever : bool
        Those after it fail as well.
    error : int
        errno.
    swallow : str
        Name of a file whose syncs do nothing and say nothing; "/" for directories.
    """

    fault: Fault = Fault.NONE
    at: int = 0
    forever: bool = False
    error: int = 0
    swallow: str = ""

    def __str__(self) -> str:
        if self.swallow:
            return f"syncs of {self.swallow} swallowed"
        name = self.fault.name.lower() + (f" {os.strerror(self.error)}" * bool(self.error))
        return f"{name} at operation {self.at}" + " and ever after" * self.forever


def compiler() -> str | None:
    """The C compiler, if there is one."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def missing() -> str | None:
    """Why the shim cannot be built; None if it can."""
    return None if compiler() else "there is no C compiler (cc), and strace makes nothing fail"


@functools.cache
def build() -> Path:
    """Compile the shim; once a process, a tenth of a second."""
    cc = compiler()
    if cc is None:
        raise FileNotFoundError("there is no C compiler (cc) to build the recorder with")
    folder = tempfile.mkdtemp(prefix="pagestore-shim-")
    atexit.register(_remove, folder, os.getpid())
    target = Path(folder) / "shim.so"
    flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([cc, *flags, "-o", str(target), str(_SOURCE), "-ldl", "-lpthread"], check=True)
    return target


def _remove(folder: str, maker: int) -> None:
    if os.getpid() == maker:  # a forked child may end first
        shutil.rmtree(folder, ignore_errors=True)


def search_path() -> dict[str, str]:
    """What lets another process import what this one can."""
    return {"PYTHONPATH": os.pathsep.join([*filter(None, sys.path), os.getcwd()])}


def environment() -> dict[str, str]:
    """Environment of a process that the shim is to be loaded into."""
    return os.environ | search_path() | {"LD_PRELOAD": str(build())}


class Shim:
    """The shim of this process, which must have been loaded into it."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.shim_start.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
        self._library.shim_plan.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_int]
        self._library.shim_counted.restype = ctypes.c_long

    def start(self, top: Path, log: Path) -> None:
        """Record from now on what happens to the files below `top`."""
        self._library.shim_start(os.fsencode(top), os.fsencode(log))

    def plan(self, plan: Plan) -> None:
        """Let operations fail as planned, counted from now on."""
        self._library.shim_plan(plan.fault, plan.error, plan.at, plan.forever)
        self._library.shim_swallow(plan.swallow.encode())

    def calm(self) -> None:
        """Let nothing fail any more; what was counted stays."""
        self._library.shim_calm()

    @property
    def counted(self) -> int:
        """Operations that the fault could have met."""
        return int(self._library.shim_counted())
