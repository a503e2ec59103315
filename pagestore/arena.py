"""The arena: one file of page-sized slots, and the superblock in the first of them.

Owns: reading, writing, syncing, growing and punching slots; the superblock and the copies of the
head in it; the whole-file mapping that pages are copied from. Does not know which slots are free.

- A1  A slot number that comes from disk is compared with the file's size before it is used.
- A2  A sync that failed is never tried again: the arena refuses every later write (`BrokenError`).
- A3  The file never shrinks: another process may have it mapped.

`FileIO` is the seam at which tests inject faults.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from typing import Any

import numpy as np

from pagestore import kernel
from pagestore.bounds import check_page_size
from pagestore.errors import BrokenError, CorruptionError, FullError
from pagestore.format import (
    HEAD_OFFSETS,
    SEAL_OFFSET,
    SUPERBLOCK_SIZE,
    CatalogSeal,
    HeadCopy,
    IntArray,
    Superblock,
)

READ_GAP = 8  # slots: to read as many for nothing costs less than another system call


class FileIO:
    """The system calls that an arena makes on its file."""

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return os.pread(fd, size, offset)

    def preadv(self, fd: int, vector: IntArray, offset: int) -> int:
        return kernel.preadv(fd, vector, offset)

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        return os.pwrite(fd, data, offset)

    def start_writing(self, fd: int) -> None:
        kernel.start_writing(fd)

    def fdatasync(self, fd: int) -> None:
        os.fdatasync(fd)

    def allocate(self, fd: int, offset: int, size: int) -> None:
        kernel.allocate(fd, offset, size)

    def punch(self, fd: int, offset: int, size: int) -> None:
        kernel.punch_hole(fd, offset, size)


class Arena:
    """Slots in a file. Thread-safe: it keeps no position, and growing takes a lock."""

    def __init__(self, path: str, *, writable: bool, io: FileIO | None = None) -> None:
        self.path = path
        self.writable = writable
        self.io = io or FileIO()
        self.broken: str | None = None
        self.durable = 0  # slots of the file when it was last synced here
        self._lock = threading.Lock()
        self._memory: kernel.Memory | None = None
        self._mapped = 0
        self.fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        try:
            self.superblock = Superblock.unpack(self._pread(SUPERBLOCK_SIZE, 0), str(path))
            check_page_size(self.superblock.page_size, str(path))
        except BaseException:
            os.close(self.fd)
            raise
        self.page_size = self.superblock.page_size

    @staticmethod
    def create(path: str, superblock: Superblock) -> None:
        """Write a new arena that holds nothing but its superblock, and sync it."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            kernel.overwrite_in_place(fd)
            kernel.allocate(fd, 0, superblock.page_size)
            if os.pwrite(fd, superblock.pack(), 0) != len(superblock.pack()):
                raise OSError(errno.EIO, "the superblock was not written whole")
            os.fsync(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close the file; memory that is mapped from it stays valid."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self._memory = None

    @property
    def slots(self) -> int:
        """Whole slots in the file as it is now."""
        return os.fstat(self.fd).st_size // self.page_size

    def check_slots(self, slots: int) -> None:
        """Raise `CorruptionError` unless the file holds that many slots (A1)."""
        if slots > self.slots:
            raise CorruptionError(
                f"{self.path} holds {self.slots} slots of {self.page_size} bytes, but slot "
                f"{slots - 1} is in use: the file was cut"
            )

    # ------------------------------------------------------------------------------- reading

    def read(self, slot: int, count: int = 1) -> bytes:
        """Contents of `count` slots from `slot` on; never touches mapped memory."""
        size = count * self.page_size
        data = self._pread(size, slot * self.page_size)
        if len(data) != size:
            self.check_slots(slot + count)
            raise CorruptionError(f"{self.path}: slot {slot} could not be read whole")
        return data

    def _pread(self, size: int, offset: int) -> bytes:
        parts: list[bytes] = []
        while size:
            try:
                part = self.io.pread(self.fd, size, offset)
            except OSError as e:
                raise CorruptionError(f"{self.path}: reading at byte {offset} failed: {e}") from e
            if not part:
                break
            parts.append(part)
            size -= len(part)
            offset += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_into(self, addresses: IntArray, slots: IntArray, lengths: IntArray) -> None:
        """Read runs of slots to the addresses of memory that the caller owns.

        Never touches mapped memory of the file. Runs that lie near each other in the file are
        read by one system call, what lies between them into memory that nobody looks at.
        """
        if not len(slots):
            return
        order = np.argsort(slots, kind="stable")
        slots, lengths = slots[order], lengths[order]
        gaps = np.append(slots[1:] - (slots[:-1] + lengths[:-1]), -1)
        apart = (gaps < 0) | (gaps > READ_GAP)
        nowhere = np.empty(READ_GAP * self.page_size, np.uint8)
        vector = np.empty((len(slots), 2, 2), np.int64)  # address and size of each run, each gap
        vector[:, 0, 0], vector[:, 0, 1] = addresses[order], lengths
        vector[:, 1, 0], vector[:, 1, 1] = nowhere.ctypes.data, np.where(apart, 0, gaps)
        vector[:, :, 1] *= self.page_size
        first = 0
        for last in (np.flatnonzero(apart) + 1).tolist():
            for i in range(first, last, kernel.MOST_PIECES // 2):
                part = vector[i : min(i + kernel.MOST_PIECES // 2, last)].reshape(-1, 2)
                self._preadv(part, int(slots[i]) * self.page_size)
            first = last

    def _preadv(self, vector: IntArray, offset: int) -> None:
        left = int(vector[:, 1].sum())
        while left:
            try:
                got = self.io.preadv(self.fd, vector, offset)
            except OSError as e:
                if e.errno in (errno.EFAULT, errno.ENOMEM):
                    raise FullError(f"no memory to read into: {e}") from e
                raise CorruptionError(f"{self.path}: reading at byte {offset} failed: {e}") from e
            if not got:
                raise CorruptionError(f"{self.path}: it ends at byte {offset}: the file was cut")
            left, offset = left - got, offset + got
            if left:  # a signal came, or it is more than the kernel reads at a time
                sizes = vector[:, 1]
                done = np.clip(got - (np.cumsum(sizes) - sizes), 0, sizes)
                vector = vector + np.stack((done, -done), axis=1)

    def pages(self, slots: int) -> np.ndarray[Any, Any]:
        """Every slot as one element of a read-only mapped array; at least `slots` of them."""
        with self._lock:
            if self._memory is None or slots * self.page_size > self._mapped:
                self._map(slots)
            memory = self._memory
            assert memory is not None
            view = memoryview(memory).toreadonly()[: self._mapped]
        return np.frombuffer(view, np.dtype(("V", self.page_size)))

    def _map(self, slots: int) -> None:
        self.check_slots(slots)
        size, memory = self.slots * self.page_size, self._memory
        try:
            if memory is None or size > len(memory):
                memory = _reserve(size)
            kernel.map_file(memory.address, size, self.fd, 0, shared=True, writable=False)
        except OSError as e:
            raise FullError(f"{self.path}: no address space for {size} bytes: {e}") from e
        self._memory, self._mapped = memory, size  # not before: what is not mapped reads as zeros

    # ------------------------------------------------------------------------------- writing

    def grow(self, slots: int, fill: bool = False) -> None:
        """Make the file hold `slots` slots, with the space for them reserved.

        With `fill` the new ones are written to: a sync of what is written there later need then
        not tell the file system's journal that the space is in use.

        Raises
        ------
        FullError
            When the disk has no room; the file is as it was.
        """
        size = slots * self.page_size
        with self._lock:
            have = os.fstat(self.fd).st_size
            if size > have:
                self._call("growing the arena", self.io.allocate, self.fd, have, size - have)
                if fill:
                    self._pwrite(memoryview(bytes(size - have)), have)

    def write(self, slot: int, data: bytes | memoryview) -> None:
        """Write whole pages side by side from `slot` on. Not durable before `sync`."""
        self._pwrite(memoryview(data), slot * self.page_size)

    def start_writing(self) -> None:
        """Let the disk begin with what was written: the sync that follows waits for less."""
        self._call("writing the arena", self.io.start_writing, self.fd)

    def sync(self) -> None:
        """Make everything that was written durable, and the file's length."""
        slots = self.slots
        self._call("syncing the arena", self.io.fdatasync, self.fd)
        self.durable = slots

    def punch(self, slot: int, count: int) -> None:
        """Give the space of free slots back to the file system; they read as zeros."""
        offset, size = slot * self.page_size, count * self.page_size
        self._call("punching the arena", self.io.punch, self.fd, offset, size)

    def _pwrite(self, data: memoryview, offset: int) -> None:
        while len(data):
            done = self._call("writing to the arena", self.io.pwrite, self.fd, data, offset)
            if done <= 0:
                self._poison("a write to the arena made no progress", None)
            data = data[done:]
            offset += done

    def _call(self, what: str, call: Any, *args: Any) -> Any:
        if self.broken:
            raise BrokenError(f"{self.path}: {self.broken}; reopen the store")
        try:
            return call(*args)
        except OSError as e:
            # a sync that ran out of space has lost pages as surely as one that hit bad sectors
            if e.errno in kernel.NO_SPACE and call != self.io.fdatasync:
                raise FullError(f"{self.path}: {what} failed: no space left") from e
            self._poison(f"{what} failed: {e.strerror or e}", e)

    def _poison(self, why: str, cause: BaseException | None) -> None:
        self.broken = why
        raise BrokenError(f"{self.path}: {why}; reopen the store") from cause

    # -------------------------------------------------------------------------------- the head

    def write_head(self, head: HeadCopy) -> None:
        """Note the newest version beside the superblock; the next sync makes it durable."""
        self._pwrite(memoryview(head.pack()), HEAD_OFFSETS[head.transaction % 2])

    def write_seal(self, seal: CatalogSeal) -> None:
        """Note how the catalog file was left."""
        self._pwrite(memoryview(seal.pack()), SEAL_OFFSET)

    def read_seal(self) -> CatalogSeal | None:
        return CatalogSeal.unpack(self._pread(64, SEAL_OFFSET))

    def read_head(self) -> HeadCopy | None:
        """Return the newest head that the superblock's page knows of."""
        raw = self._pread(SUPERBLOCK_SIZE, 0)
        heads = [h for at in HEAD_OFFSETS if (h := HeadCopy.unpack(raw[at : at + 64]))]
        return max(heads, key=lambda h: h.transaction, default=None)


def _reserve(size: int) -> kernel.Memory:
    """Addresses for a file of `size` bytes, and for it to grow where that is allowed."""
    with contextlib.suppress(OSError):
        return kernel.reserve(max(2 * size, 64 << 20))
    return kernel.reserve(size)
