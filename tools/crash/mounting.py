"""Images of file systems: formatted, mounted on loop devices, copied by reference.

A loop device is set to clear itself: it goes when what is mounted on it is unmounted, or when the
process dies before it could mount it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_FICLONE = 0x40049409
_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_AUTOCLEAR = 4
_CONFIG = struct.Struct("<II 52xI 160x16x64x")  # struct loop_config: fd, block size, lo_flags
_MNT_DETACH = 2
_CLONE_NEWNS = 0x20000
_MS_REC_PRIVATE = 0x4000 | 1 << 18
_SYNC_FILE_RANGE = 1 | 2 | 4  # wait before, write, wait after
_PATIENCE = 10.0  # seconds, for processes that were killed to let go of a mount
_OPTIONS = {"xfs": "nouuid", "ext4": ""}  # a copy has the UUID of the original
_FORMATS = {
    "xfs": ("mkfs.xfs", "-q", "-m", "reflink=1"),
    "ext4": ("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"),
}


class UnavailableError(Exception):
    """This machine, or this user, cannot do it."""


def private_mounts() -> None:
    """Let what this process mounts be seen by it and its children alone, and end with them."""
    if _LIBC.unshare(_CLONE_NEWNS) or _LIBC.mount(b"none", b"/", None, _MS_REC_PRIVATE, None):
        raise UnavailableError(f"mounting is refused: {os.strerror(ctypes.get_errno())}")


def make_image(path: Path, kind: str, size: int) -> None:
    """Make a sparse file with an empty file system in it."""
    program, *options = _FORMATS[kind]
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if found is None:
        raise UnavailableError(f"there is no {program}")
    with path.open("wb") as file:
        file.truncate(size)
    done = subprocess.run([found, *options, str(path)], capture_output=True, check=False)
    if done.returncode:
        raise UnavailableError(f"{program}: {done.stderr.decode().strip()[:200]}")


@contextlib.contextmanager
def mounted(image: Path, kind: str, where: Path) -> Iterator[Path]:
    """Mount an image for the time of a block; what still uses it then has died or soon will."""
    where.mkdir(exist_ok=True)
    with _attach(image) as loop:
        _mount(loop.name, where, kind)
    try:
        yield where
    finally:
        unmount(where)


def _attach(image: Path) -> FileIO:
    """An open loop device over a file."""
    try:
        with (
            open("/dev/loop-control", "rb", buffering=0) as control,
            image.open("r+b", buffering=0) as file,
        ):
            while True:
                number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
                loop = FileIO(f"/dev/loop{number}", "r+b")
                try:
                    fcntl.ioctl(loop, _LOOP_CONFIGURE, _CONFIG.pack(file.fileno(), 0, _AUTOCLEAR))
                except OSError as error:
                    loop.close()
                    if error.errno != errno.EBUSY:  # somebody was quicker
                        raise
                else:
                    return loop
    except OSError as error:
        raise UnavailableError(f"no loop devices: {error}") from error


def _mount(device: Any, where: Path, kind: str) -> None:
    arguments = [os.fsencode(text) for text in (device, where, kind)]
    if _LIBC.mount(*arguments, 0, _OPTIONS[kind].encode()):
        number = ctypes.get_errno()
        if number == errno.ENODEV:
            raise UnavailableError(f"this kernel has no {kind}")
        if number in (errno.EPERM, errno.EACCES):
            raise UnavailableError("mounting is refused")
        raise OSError(number, f"mounting {kind}: {os.strerror(number)}")


def unmount(where: Path) -> None:
    """Unmount; at the last out of sight, if somebody will not let go."""
    end = time.monotonic() + _PATIENCE
    while _LIBC.umount2(os.fsencode(where), 0):
        number = ctypes.get_errno()
        if number == errno.EINVAL:
            return
        if number != errno.EBUSY or time.monotonic() > end:
            _LIBC.umount2(os.fsencode(where), _MNT_DETACH)
            raise OSError(number, f"unmounting {where}: {os.strerror(number)}")
        time.sleep(0.01)


def clone(source: Path, target: Path) -> None:
    """Copy a file by reference: at one moment between two writes, dirty pages included."""
    with source.open("rb") as original, target.open("wb") as copy:
        try:
            fcntl.ioctl(copy, _FICLONE, original.fileno())
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EXDEV, errno.ENOTTY):
                raise UnavailableError("files cannot be copied by reference here") from error
            raise


def write_back(path: Path, ranges: Iterable[tuple[int, int]]) -> None:
    """Let the kernel write dirty pages in some ranges of a file to its disk, without a flush."""
    with path.open("rb") as file:
        for offset, size in ranges:
            _LIBC.sync_file_range(
                file.fileno(), ctypes.c_int64(offset), ctypes.c_int64(size), _SYNC_FILE_RANGE
            )
