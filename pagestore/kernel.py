"""What the Linux kernel does for us: memory at an address, written pages, byte locks, file space.

Owns every ctypes call, ioctl and `/proc` read of the package, and knows which of them this
kernel offers (`probe`). Every failure is an `OSError` that carries errno and names the call.

Knows nothing of slots, versions or policy: addresses, lengths and offsets are plain numbers that
the caller has checked, and that it owns. Meant for 64-bit Linux.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import mmap
import os
import platform
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

Ranges: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
"""Shape (n, 2): half-open, rising, disjoint ranges of system pages."""

PAGE_SIZE: Final = mmap.PAGESIZE
_PAGE_SHIFT: Final = PAGE_SIZE.bit_length() - 1

_libc = ctypes.CDLL(None, use_errno=True)
# ssize_t, not a pointer: MAP_FAILED is then the -1 of every other call.
_libc.mmap.restype = ctypes.c_ssize_t
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,
]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.preadv.restype = ctypes.c_ssize_t
_libc.preadv.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64]
_libc.sync_file_range.argtypes = [
    ctypes.c_int,
    ctypes.c_int64,
    ctypes.c_int64,
    ctypes.c_uint,
]
_libc.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = [ctypes.c_long, ctypes.c_long]


def _call(name: str, *arguments: object, says: str | None = None) -> int:
    while True:
        result = int(getattr(_libc, name)(*arguments))
        if result != -1:
            return result
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, f"{says or name}: {os.strerror(code)}")


def _named(call: str, error: OSError) -> OSError:
    return OSError(error.errno, f"{call}: {error.strerror}")


@contextlib.contextmanager
def _naming(call: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _named(call, error) from None


# ---------------------------------------------------------------- memory at an address

_MAP_FIXED: Final = 0x10
_MAP_NORESERVE: Final = 0x40 if platform.machine() == "ppc64le" else 0x4000
_MADV_NOHUGEPAGE: Final = 15
_MADV_POPULATE_READ: Final = 22
_READ: Final = mmap.PROT_READ
_READ_WRITE: Final = mmap.PROT_READ | mmap.PROT_WRITE
# Without it the kernel refuses a private writable mapping larger than what memory could hold.
_PRIVATE: Final = mmap.MAP_PRIVATE | _MAP_NORESERVE


class Memory(mmap.mmap):
    """A reserved range of addresses; every piece laid over it goes when the last array goes.

    The unmapping comes before the callbacks of `weakref.finalize`, so that what they release (a
    pin) is never still looked at.
    """

    address: int
    anchor: object = None  # what must live as long as the memory does


def reserve(nbytes: int) -> Memory:
    """Take a range of addresses, zero-filled and writable, that costs no memory yet."""
    with _naming("mmap"):
        memory = Memory(-1, nbytes, flags=_PRIVATE | mmap.MAP_ANONYMOUS, prot=_READ_WRITE)
    memory.address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    _page_by_page(memory.address, nbytes)
    return memory


def map_file(
    address: int, nbytes: int, fd: int, offset: int, *, shared: bool, writable: bool
) -> None:
    """Lay a piece of a file over part of a reserved range, replacing what is mapped there."""
    flags = _MAP_FIXED | (mmap.MAP_SHARED if shared else _PRIVATE)
    _call("mmap", address, nbytes, _READ_WRITE if writable else _READ, flags, fd, offset)


def map_zero(address: int, nbytes: int, *, writable: bool) -> None:
    """Lay zeros over part of a reserved range, replacing what is mapped there."""
    flags = _MAP_FIXED | _PRIVATE | mmap.MAP_ANONYMOUS
    _call("mmap", address, nbytes, _READ_WRITE if writable else _READ, flags, -1, 0)
    _page_by_page(address, nbytes)


def _page_by_page(address: int, nbytes: int) -> None:
    # A store to one page would otherwise break 512 where huge pages are the system's default.
    with contextlib.suppress(OSError):  # a kernel without huge pages has no such advice
        _call("madvise", address, nbytes, _MADV_NOHUGEPAGE)


def prefetch(address: int, nbytes: int) -> None:
    """Look first: bring the pages in, and raise where a plain load would be SIGBUS."""
    try:
        _call("madvise", address, nbytes, _MADV_POPULATE_READ, says="madvise(POPULATE_READ)")
    except OSError as error:
        if error.errno != errno.EINVAL:  # before Linux 5.14 there is no such advice
            raise


MOST_PIECES: Final = 1024  # of memory in one `preadv`: IOV_MAX


def preadv(fd: int, vector: Ranges, offset: int) -> int:
    """Read into pieces of memory: rows of address and size. Returns how many bytes."""
    return _call("preadv", fd, vector.ctypes.data, len(vector), offset)


# ---------------------------------------------------------------- written pages

_SYS_USERFAULTFD: Final = {"x86_64": 323, "ppc64le": 364, "s390x": 355}.get(platform.machine(), 282)
_UFFD_USER_MODE_ONLY: Final = 1
_UFFD_API: Final = 0xAA
_UFFD_FEATURE_PAGEFAULT_FLAG_WP: Final = 1 << 0
_UFFD_FEATURE_WP_UNPOPULATED: Final = 1 << 13
_UFFD_FEATURE_WP_ASYNC: Final = 1 << 15
_UFFDIO_REGISTER_MODE_WP: Final = 1 << 1
_UFFDIO_WRITEPROTECT_MODE_WP: Final = 1 << 0
_PM_SCAN_WP_MATCHING: Final = 1 << 0
_PM_SCAN_CHECK_WPASYNC: Final = 1 << 1
_PAGE_IS_WRITTEN: Final = 1 << 1
_PAGE_IS_FILE: Final = 1 << 2
_PAGE_IS_PRESENT: Final = 1 << 3
_PAGE_IS_SWAPPED: Final = 1 << 4
_PAGE_IS_PFNZERO: Final = 1 << 5
_PAGE_IS_HUGE: Final = 1 << 6


def _iowr(kind: int, number: int, layout: type[ctypes.Structure]) -> int:
    return 3 << 30 | ctypes.sizeof(layout) << 16 | kind << 8 | number


def _u64(*names: str) -> list[tuple[str, Any]]:
    return [(name, ctypes.c_uint64) for name in names]


class _UffdioApi(ctypes.Structure):
    _fields_ = _u64("api", "features", "ioctls")


class _UffdioRegister(ctypes.Structure):
    _fields_ = _u64("start", "len", "mode", "ioctls")


class _UffdioWriteprotect(ctypes.Structure):
    _fields_ = _u64("start", "len", "mode")


class _PmScanArg(ctypes.Structure):
    _fields_ = _u64(
        "size", "flags", "start", "end", "walk_end", "vec", "vec_len", "max_pages",
        "category_inverted", "category_mask", "category_anyof_mask", "return_mask",
    )  # fmt: skip


_UFFDIO_REGISTER: Final = _iowr(0xAA, 0x00, _UffdioRegister)
_UFFDIO_WRITEPROTECT: Final = _iowr(0xAA, 0x06, _UffdioWriteprotect)
_UFFDIO_API: Final = _iowr(0xAA, 0x3F, _UffdioApi)
_PAGEMAP_SCAN: Final = _iowr(ord("f"), 16, _PmScanArg)


class Query(NamedTuple):
    """Which pages a scan is about; a page is in one state at a time, so a scan is atomic per page.

    A page has the bits of `mask` and one of `anyof`, both read with `inverted` flipped.
    """

    mask: int
    inverted: int = 0
    anyof: int = 0
    returned: int = 0


_MAPPED: Final = _PAGE_IS_PRESENT | _PAGE_IS_SWAPPED
_NO_COPY: Final = _PAGE_IS_FILE | _PAGE_IS_PFNZERO
_KINDS: Final = _NO_COPY | _MAPPED | _PAGE_IS_HUGE

WRITTEN_COPIES: Final = Query(
    _PAGE_IS_WRITTEN | _NO_COPY, _NO_COPY, anyof=_MAPPED, returned=_PAGE_IS_PRESENT
)
"""Pages that this process has a copy of, in memory or swapped out, and that are not armed: they
were written. What has no page table is passed over, but for each page that is mapped the kernel
looks into a record of its own."""

COPIES: Final = WRITTEN_COPIES._replace(mask=_NO_COPY)
"""Copies, armed or not; and gaps that are armed, which look like what is swapped out."""

COPIES_IN_MEMORY: Final = Query(_PAGE_IS_PRESENT | _NO_COPY, _NO_COPY, returned=_PAGE_IS_PRESENT)
"""Copies, armed or not. Not those that are swapped out: gaps that are armed look the same."""

WRITTEN: Final = Query(_PAGE_IS_WRITTEN, returned=_PAGE_IS_WRITTEN)
"""Every page that is not armed, mapped or not. The kernel has a fast loop for this query and no
other."""

UNARMED: Final = WRITTEN._replace(returned=_KINDS)
"""The same, and what they are. What has no page table is given one that is armed, but not in one
step with being found."""

Found: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
"""Shape (n, 3): rising, disjoint ranges of addresses, and their kind as far as the query asks."""

# Room for 10,000 scattered pages in one call; what the kernel does not fill is never touched.
_RANGES_PER_SCAN: Final = 16_384


class _Scratch:
    """A request and room for its answer: to make them takes longer than a short scan."""

    def __init__(self) -> None:
        self.found = np.empty((_RANGES_PER_SCAN, 3), np.int64)
        self.request = _PmScanArg(
            size=ctypes.sizeof(_PmScanArg), vec=self.found.ctypes.data, vec_len=len(self.found)
        )


class Userfault:
    """Asynchronous write protection: the kernel itself notes each page of a range on its first
    store, whoever stores (a system call too), and stops no one.

    Works only in the process that made it. A page is *armed* when its next store will be noted;
    a page that is not mapped needs no arming, since a store maps it. Turns the kernel's
    fault-around off: the first load of each page faults, where no huge page is mapped.
    """

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._pagemap = -1
        self._scratch: list[_Scratch] = []  # one for each thread that scans just now
        flags = os.O_CLOEXEC | os.O_NONBLOCK | _UFFD_USER_MODE_ONLY
        self._fd = _call("syscall", _SYS_USERFAULTFD, flags, says="userfaultfd")
        try:
            features = (
                _UFFD_FEATURE_PAGEFAULT_FLAG_WP
                | _UFFD_FEATURE_WP_UNPOPULATED
                | _UFFD_FEATURE_WP_ASYNC
            )
            api = _UffdioApi(api=_UFFD_API, features=features)
            _ioctl("UFFDIO_API", self._fd, _UFFDIO_API, api)
            with _naming("open"):
                self._pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
            self.finds_gaps = self._try_gaps()
        except BaseException:
            self.close()
            raise

    @property
    def forked(self) -> bool:
        """Whether this process is a child of the one whose memory is watched."""
        return os.getpid() != self._owner

    def register(self, address: int, nbytes: int) -> None:
        """Allow tracking on a range, some of which may be registered already.

        Whatever is laid over it later has to be registered again. What is new is not armed.
        """
        self._check()
        request = _UffdioRegister(start=address, len=nbytes, mode=_UFFDIO_REGISTER_MODE_WP)
        _ioctl("UFFDIO_REGISTER", self._fd, _UFFDIO_REGISTER, request)

    def arm(self, address: int, nbytes: int) -> None:
        """Arm the whole range, which fills its page tables: 8 bytes a page."""
        self._check()
        request = _UffdioWriteprotect(start=address, len=nbytes, mode=_UFFDIO_WRITEPROTECT_MODE_WP)
        _ioctl("UFFDIO_WRITEPROTECT", self._fd, _UFFDIO_WRITEPROTECT, request)

    def scan(self, address: int, nbytes: int, query: Query = WRITTEN, *, arm: bool = True) -> Found:
        """Find the pages that a query is about, and arm them.

        A store meanwhile is in this answer or in the next. After an OSError part of the answer is
        lost: count the whole range as written.
        """
        self._check()
        try:
            scratch = self._scratch.pop()
        except IndexError:
            scratch = _Scratch()
        request, found = scratch.request, scratch.found
        request.flags = _PM_SCAN_CHECK_WPASYNC | (_PM_SCAN_WP_MATCHING if arm else 0)
        request.category_mask = query.mask
        request.category_inverted = query.inverted
        request.category_anyof_mask = query.anyof
        request.return_mask = query.returned
        request.end = stop = address + nbytes
        pieces = []
        try:
            while address < stop:
                request.start = address
                n = _ioctl("PAGEMAP_SCAN", self._pagemap, _PAGEMAP_SCAN, request)
                address = request.walk_end
                if n:
                    pieces.append(found[:n].copy())
                    # walk_end may be where the kernel's own buffer was last full, pages before
                    # the last one found: from there on, it would be found once more.
                    address = max(address, int(found[n - 1, 1]))
            return _together(pieces)
        finally:
            self._scratch.append(scratch)

    def close(self) -> None:
        """Stop watching everything that was registered here."""
        for fd in (self._fd, self._pagemap):
            if fd >= 0:
                os.close(fd)
        self._fd = self._pagemap = -1

    def _check(self) -> None:
        # The fd in a forked child still means the parent's memory.
        if self.forked:
            raise OSError(errno.EPERM, "userfaultfd: made by the parent of this forked process")

    def _try_gaps(self) -> bool:
        """Whether UNARMED finds gaps: before July 2026 only WRITTEN did."""
        size = 3 * PAGE_SIZE
        with contextlib.closing(reserve(size)) as memory:
            self.register(memory.address, size)
            memory[0] = 1
            return int(self.scan(memory.address, size, UNARMED)[-1:, 1].sum()) == (
                memory.address + size
            )


def _ioctl(name: str, fd: int, number: int, request: ctypes.Structure) -> int:
    return _call("ioctl", fd, number, ctypes.addressof(request), says=f"ioctl({name})")


def copies(found: Found) -> Found:
    """Of what UNARMED found, the pages that this process has a copy of."""
    kept: Found = found[np.isin(found[:, 2] & ~_PAGE_IS_HUGE, (_PAGE_IS_PRESENT, _PAGE_IS_SWAPPED))]
    return kept


def without_table(found: Found, address: int, nbytes: int) -> Ranges:
    """Ranges of addresses, of what UNARMED found, where there may have been no page table."""
    table = PAGE_SIZE // 8 * PAGE_SIZE
    kind = found[:, 2]
    gaps = pages(found[kind == 0], 0) * PAGE_SIZE
    first, last = -(-address // table) * table, (address + nbytes) // table * table
    long = gaps[:, 1] - gaps[:, 0] >= table
    huge: Ranges = found[(kind & _PAGE_IS_HUGE) != 0, :2]
    return np.concatenate((gaps[long | (gaps[:, 0] < first) | (gaps[:, 1] > last)], huge))


def _together(pieces: list[Found]) -> Found:
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate(pieces) if pieces else np.empty((0, 3), np.int64)


def pages(found: Found, address: int) -> Ranges:
    """What was found as pages from an address on; ranges that touch as one, whatever their kind.

    The kernel cuts a range where its own buffer of 512 ends, where two mappings meet and where the
    kind changes.
    """
    ranges = (found[:, :2] - address) >> _PAGE_SHIFT
    if len(ranges) < 2:
        return ranges
    gaps = ranges[1:, 0] != ranges[:-1, 1]
    if np.count_nonzero(gaps) == len(gaps):
        return ranges
    first, last = np.append(True, gaps), np.append(gaps, True)
    return np.stack((ranges[first, 0], ranges[last, 1]), axis=1)


_ENTRIES_PER_READ: Final = 1 << 15
_SWAPPED_OR_PRESENT: Final = 0b110
_FILE_OR_SHARED: Final = 0b001


def pagemap_private(address: int, nbytes: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which pages of a private mapping this process has its own copy of.

    A page of zeros that was only read counts too where nothing but zeros is mapped. Not for a
    range that a Userfault watches: its marks look like swapped pages.
    """
    first, n = address // PAGE_SIZE, nbytes // PAGE_SIZE
    private = np.empty(n, np.bool_)
    entries = np.empty(min(n, _ENTRIES_PER_READ), np.uint64)
    with _naming("pread(/proc/self/pagemap)"):
        # Opened each time (4 µs): an inherited one would show the parent's memory.
        fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for start in range(0, n, _ENTRIES_PER_READ):
                part = entries[: n - start]
                if os.preadv(fd, [part.data], (first + start) * 8) != part.nbytes:
                    raise OSError(errno.EIO, "short read")
                state = part >> 61
                has_page, shared = state & _SWAPPED_OR_PRESENT, state & _FILE_OR_SHARED
                private[start : start + len(part)] = (has_page != 0) & (shared == 0)
        finally:
            os.close(fd)
    return private


# ---------------------------------------------------------------- byte locks


def lock_shared(fd: int, offset: int, *, wait: bool = False) -> bool:
    """Lock one byte together with others; False when someone has it alone."""
    return _lock(fd, offset, fcntl.F_RDLCK, wait=wait)


def lock_exclusive(fd: int, offset: int, *, wait: bool = False) -> bool:
    """Lock one byte alone; False when someone has it."""
    return _lock(fd, offset, fcntl.F_WRLCK, wait=wait)


def unlock(fd: int, offset: int) -> None:
    """Let go of one byte. Closing the last copy of the fd, or dying, lets go of all."""
    _lock(fd, offset, fcntl.F_UNLCK, wait=False)


def _lock(fd: int, offset: int, kind: int, *, wait: bool) -> bool:
    # struct flock; a pid of 0 is what tells this kind of lock from the classic one.
    request = struct.pack("hhqqi4x", kind, os.SEEK_SET, offset, 1, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, request)
    except OSError as error:
        if not wait and error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise _named("fcntl(F_OFD_SETLK)", error) from None
    return True


# ---------------------------------------------------------------- file space

NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What says that there is no room: on the disk, in the quota, or within `ulimit -f`."""

_FS_IOC_GETFLAGS: Final = 0x80086601
_FS_IOC_SETFLAGS: Final = 0x40086602
_FS_NOCOW_FL: Final = 0x00800000


def overwrite_in_place(fd: int) -> None:
    """Ask for an empty file that a copy-on-write file system (btrfs) overwrites in place.

    There every store into a shared mapping takes new space otherwise, and is SIGBUS where there
    is none. Any other file system has no such flag, and no such need.
    """
    with contextlib.suppress(OSError):
        flags = struct.unpack("l", fcntl.ioctl(fd, _FS_IOC_GETFLAGS, bytes(8)))[0]
        fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("l", flags | _FS_NOCOW_FL))


_FALLOC_FL_KEEP_SIZE: Final = 1
_SYNC_FILE_RANGE_WRITE: Final = 2
_FALLOC_FL_PUNCH_HOLE: Final = 2


def allocate(fd: int, offset: int, nbytes: int, *, keep_size: bool = False) -> None:
    """Reserve disk space, so that a later write cannot find the disk full."""
    try:
        _call("fallocate", fd, _FALLOC_FL_KEEP_SIZE if keep_size else 0, offset, nbytes)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        if not keep_size:
            with _naming("posix_fallocate"):
                os.posix_fallocate(fd, offset, nbytes)


def start_writing(fd: int) -> None:
    """Have the disk begin to write what is dirty in a file; promises nothing."""
    _call("sync_file_range", fd, 0, 0, _SYNC_FILE_RANGE_WRITE)


def sync(path: str) -> None:
    """Make a file durable, or which files a directory has under which names."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def punch_hole(fd: int, offset: int, nbytes: int) -> None:
    """Give the space of a piece back; whoever still looks at it sees zeros without a warning."""
    mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
    _call("fallocate", fd, mode, offset, nbytes, says="fallocate(PUNCH_HOLE)")


# ---------------------------------------------------------------- how much there is


def total_memory() -> int:
    """Bytes of memory that this process may use at most."""
    physical = os.sysconf("SC_PHYS_PAGES") * PAGE_SIZE
    return min([physical, *_cgroup_limits()])


def _contents(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def private_bytes() -> int:
    """Anonymous memory this process holds: what the OOM killer counts, page cache left out."""
    with _naming("read(/proc/self/statm)"):
        _, resident, shared, *_ = _contents("/proc/self/statm").split()
    return (int(resident) - int(shared)) * PAGE_SIZE


def mapping_limit() -> int:
    """How many mappings a process may have."""
    try:
        return int(_contents("/proc/sys/vm/max_map_count"))
    except (OSError, ValueError):
        return 65_530


def count_mappings() -> int:
    """How many mappings this process has now."""
    try:
        return _contents("/proc/self/maps").count(b"\n")
    except OSError:
        return 0


def _cgroup_limits() -> Iterator[int]:
    """Memory limits of the control groups that this process counts to."""
    try:
        memberships = os.fsdecode(_contents("/proc/self/cgroup"))
    except OSError:
        return
    for limit in _limit_files(memberships):
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            yield int(_contents(limit))


@functools.lru_cache(4)
def _limit_files(memberships: str) -> tuple[str, ...]:
    """Where those limits stand; to look for the files takes longer than to read them."""
    return tuple(filter(os.path.exists, _possible_limit_files(memberships)))


def _possible_limit_files(memberships: str) -> Iterator[str]:
    for membership in memberships.splitlines():
        _, controllers, path = membership.split(":", 2)
        if not controllers:
            top, limit = "/sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, limit = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        groups = [group for group in path.split("/") if group]
        # A container may not see its own group by this path, but it always sees the top.
        for level in range(len(groups), -1, -1):
            yield "/".join((top, *groups[:level], limit))


# ---------------------------------------------------------------- what this kernel offers


class Capabilities(NamedTuple):
    """What works here, found out by doing it; `reasons` says what is wrong with the rest."""

    userfault: bool
    pagemap: bool
    ofd_locks: bool
    map_fixed: bool
    reasons: dict[str, str]


@functools.cache
def probe() -> Capabilities:
    """Try everything once on a few pages. Never raises."""
    reasons: dict[str, str] = {}

    def works(name: str, attempt: Callable[[int, Memory], bool]) -> bool:
        try:
            with contextlib.closing(reserve(4 * PAGE_SIZE)) as memory:
                fd = os.memfd_create("pagestore-probe")
                try:
                    os.truncate(fd, 4 * PAGE_SIZE)
                    map_file(memory.address, len(memory), fd, 0, shared=False, writable=True)
                    if not attempt(fd, memory):
                        reasons[name] = "the kernel's answer is wrong"
                finally:
                    os.close(fd)
        except Exception as error:
            reasons[name] = getattr(error, "strerror", None) or str(error)
        return name not in reasons

    return Capabilities(
        userfault=works("userfault", _try_userfault),
        pagemap=works("pagemap", _try_pagemap),
        ofd_locks=works("ofd_locks", _try_locks),
        map_fixed=works("map_fixed", _try_map),
        reasons=reasons,
    )


def _try_userfault(_fd: int, memory: Memory) -> bool:
    memory[PAGE_SIZE] = 1
    with contextlib.closing(Userfault()) as userfault:
        userfault.register(memory.address, len(memory))
        userfault.arm(memory.address, len(memory))
        memory[PAGE_SIZE] = 2
        _ = memory[2 * PAGE_SIZE]
        memory[3 * PAGE_SIZE] = 1
        first = userfault.scan(memory.address, len(memory))
        again = userfault.scan(memory.address, len(memory))
    return pages(first, memory.address).tolist() == [[1, 2], [3, 4]] and not len(again)


def _try_pagemap(_fd: int, memory: Memory) -> bool:
    _ = memory[0]
    memory[PAGE_SIZE] = 1
    private = pagemap_private(memory.address, len(memory))
    return np.flatnonzero(private).tolist() == [1]


def _try_locks(fd: int, _memory: Memory) -> bool:
    other = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
    try:
        return lock_exclusive(fd, 1 << 62) and not lock_shared(other, 1 << 62)
    finally:
        os.close(other)


def _try_map(fd: int, memory: Memory) -> bool:
    os.pwrite(fd, b"x", 2 * PAGE_SIZE)
    memory[0] = 1
    map_file(memory.address, PAGE_SIZE, fd, 2 * PAGE_SIZE, shared=True, writable=False)
    return memory[0] == ord("x")
