"""Snapshots by the file system: a clone of one file a version (`cp --reflink`, FICLONE).

The file system lies in a file that is mounted through a loop device: it needs root, and it pays
for the file system below it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterable
from typing import ClassVar

from tools.bench.peers import PAGE, Key, Lacks, Pages, Peer, Rows
from tools.bench.peers.limit import Mapped

FICLONE = 0x40049409
LARGEST = 64 << 30  # of the sparse file that holds the file system


class Reflink(Peer):
    lacks = ("does not say what changed (FIEMAP lists extents)", "needs root here")
    packages = ("numpy",)
    imports = "numpy"
    copies = False  # two file systems of one identity cannot be mounted at once
    start = """
import sys, numpy
print(numpy.memmap(sys.argv[1] + "/mnt/" + sys.argv[2], mode="r")[0])
"""
    make: ClassVar[tuple[str, ...]]

    @classmethod
    def versions(cls) -> str:
        shown = subprocess.run([cls.make[0], "-V"], check=True, capture_output=True, text=True)
        first = (shown.stdout or shown.stderr).splitlines()[0]
        return f"Linux {os.uname().release}, {first}"

    def load(self, chunks: Iterable[Rows]) -> Key:
        if os.geteuid() != 0:
            raise Lacks("mounting a file system needs root")
        if not shutil.which(self.make[0]):
            raise Lacks(f"{self.make[0]} is not installed")
        with (self.folder / "image").open("wb") as image:
            image.truncate(min(LARGEST, 16 * self.pages * PAGE + (4 << 30)))
        subprocess.run([*self.make, str(self.folder / "image")], check=True, capture_output=True)
        self._mount = self.folder / "mnt"
        self._mount.mkdir()
        self._mounted = self._attach()
        self._start("work", os.O_CREAT)
        at = 0
        for rows in chunks:
            os.pwrite(self._file, rows.data, at)
            at += rows.size
        return self.commit()

    def _attach(self) -> bool:
        """Mount the image, if nobody else has: whoever did takes it down again."""
        if self._mount.is_mount():
            return False
        mount = ["mount", "-o", "loop,noatime", str(self.folder / "image"), str(self._mount)]
        done = subprocess.run(mount, check=False, capture_output=True, text=True)
        if done.returncode:
            raise Lacks(f"cannot be mounted here: {done.stderr.strip()}")
        return True

    def _start(self, name: str, flags: int = 0) -> None:
        self._file = os.open(self._mount / name, os.O_RDWR | flags)
        self._folder = os.open(self._mount, os.O_RDONLY)
        self._count = sum(path.name.startswith("v") for path in self._mount.iterdir())

    def open(self, *, readonly: bool = False) -> None:
        self._mount = self.folder / "mnt"
        self._mounted = self._attach()
        if not readonly:
            self._start("work")

    def change(self, pages: Pages, rows: Rows) -> None:
        for page, row in zip(pages.tolist(), rows, strict=True):
            os.pwrite(self._file, row.data, page * PAGE)

    def commit(self) -> Key:
        key = f"v{self._count}"
        self._count += 1
        self._clone(self._file, key)
        return key

    def _clone(self, source: int, name: str) -> None:
        clone = os.open(self._mount / name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        fcntl.ioctl(clone, FICLONE, source)  # first writes the source's dirty pages
        os.fsync(clone)
        os.close(clone)
        os.fsync(self._folder)

    def reader(self, key: Key) -> Mapped:
        return Mapped(self._mount / key)

    def branch(self, key: Key) -> None:
        source = os.open(self._mount / key, os.O_RDONLY)
        name = f"b{self._count}"
        self._clone(source, name)
        os.close(source)
        os.close(self._file)
        self._file = os.open(self._mount / name, os.O_RDWR)

    def delete_old(self) -> None:
        for path in self._mount.iterdir():
            if path.name.startswith("v") and path.name != f"v{self._count - 1}":
                path.unlink()
        os.fsync(self._folder)

    def give_back(self) -> None:
        """XFS frees what was unlinked in the background: wait until it has."""
        before, now = -1, self.used()
        while before != now:
            time.sleep(0.05)
            before, now = now, self.used()

    def used(self) -> int:
        """As the mounted file system counts: shared extents once, its metadata too."""
        subprocess.run(["sync", "-f", str(self._mount)], check=True)
        found = os.statvfs(self._mount)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def close(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)
            os.close(self._folder)
            del self._file
        if self._mounted:
            unmount = ["umount", str(self._mount)]
            if subprocess.run(unmount, check=False, capture_output=True).returncode:
                subprocess.run([*unmount, "-l"], check=True)  # an array still looks into it
