"""What a recorder of system calls must follow, or must say that it does not follow."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest


def odd(top: Path) -> None:
    """Every way that there is to hold a descriptor, and to fail."""
    os.chdir(top)
    a = os.open("a", os.O_RDWR | os.O_CREAT)
    os.write(a, b"0123456789")
    os.lseek(a, -4, os.SEEK_CUR)
    b = os.dup(a)
    os.write(b, b"xy")  # at 6
    os.read(a, 1)
    thread = threading.Thread(target=os.writev, args=(b, [b"from ", b"a thread"]))
    thread.start()
    thread.join()
    pid = os.fork()
    if not pid:
        os.write(b, b"from a child")
        os._exit(0)
    os.waitpid(pid, 0)
    os.dup2(a, 77)
    os.closerange(a, a + 1)
    os.write(77, b"behind the child's")
    appending = os.open("a", os.O_WRONLY | os.O_APPEND | os.O_DSYNC)
    os.write(appending, b"end")
    os.posix_fallocate(77, 0, 300)
    os.write(appending, b"end")
    os.unlink("a")
    os.pwrite(77, b"nobody will see this", 3)
    os.fsync(77)
    os.mkdir("d")
    directory = os.open("d", os.O_RDONLY)
    for name in ("one", "two"):
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=directory))
    os.rename("one", "two", src_dir_fd=directory, dst_dir_fd=directory)
    os.rename("d", "e")
    os.fsync(directory)
    with open("e/two", "wb") as file:
        file.write(b"again")
    os.truncate("e/two", 2)
    reading = os.open("e/two", os.O_RDONLY)
    for wrong in (
        lambda: os.write(reading, b"x"),
        lambda: os.ftruncate(reading, 1),
        lambda: os.mkdir("e"),
        lambda: os.rmdir("e"),
        lambda: os.unlink("not there"),
        lambda: os.rename("not there", "nor there"),
    ):
        with pytest.raises(OSError, match=r"\[Errno"):
            wrong()
    os.unlink("two", dir_fd=directory)
    os.rmdir("e")


def copying(top: Path) -> None:
    with open(top / "a", "wb") as source, open(top / "b", "wb") as target:
        source.write(b"x" * 100)
        source.flush()
        fd = os.open(top / "a", os.O_RDONLY)
        os.copy_file_range(fd, target.fileno(), 100)
    os.link(top / "a", top / "c")
