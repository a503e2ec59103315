"""Does the kernel do what the layer over it says?"""

from __future__ import annotations

import contextlib
import errno
import gc
import mmap
import os
import random
import signal
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pagestore import kernel
from pagestore.kernel import PAGE_SIZE

PAGES = 16


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """A file of PAGES pages; page n holds bytes of value n."""
    fd = os.open(tmp_path / "pages", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"".join(bytes([n]) * PAGE_SIZE for n in range(PAGES)), 0)
    yield fd
    os.close(fd)


def in_child(act: Callable[[], bool]) -> bool:
    """What `act` says in a forked child; False when it raises there."""
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            code = 0 if act() else 1
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def mapped(address: int, nbytes: int) -> list[str]:
    """The lines of the process's memory map that overlap the range."""

    def overlaps(line: str) -> bool:
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        return start < address + nbytes and address < end

    return [line for line in Path("/proc/self/maps").read_text().splitlines() if overlaps(line)]


def lay(memory: kernel.Memory, fd: int, *, shared: bool = False, writable: bool = True) -> None:
    kernel.map_file(memory.address, len(memory), fd, 0, shared=shared, writable=writable)


# ---------------------------------------------------------------- memory


def test_pieces_appear_where_they_were_laid(fd: int) -> None:
    memory = kernel.reserve(4 * PAGE_SIZE)
    at = memory.address
    kernel.map_file(at, PAGE_SIZE, fd, 7 * PAGE_SIZE, shared=False, writable=True)
    kernel.map_file(at + PAGE_SIZE, PAGE_SIZE, fd, 3 * PAGE_SIZE, shared=True, writable=False)
    kernel.map_zero(at + 2 * PAGE_SIZE, PAGE_SIZE, writable=True)
    assert list(memory[::PAGE_SIZE]) == [7, 3, 0, 0]


def test_private_stores_do_not_reach_the_file_and_discard_undoes_them(fd: int) -> None:
    memory = kernel.reserve(PAGES * PAGE_SIZE)
    lay(memory, fd)
    memory[5 * PAGE_SIZE] = 99
    assert os.pread(fd, 1, 5 * PAGE_SIZE) == b"\x05"
    memory.madvise(mmap.MADV_DONTNEED)
    assert memory[5 * PAGE_SIZE] == 5


def test_a_forbidden_store_is_a_fault(fd: int) -> None:
    memory = kernel.reserve(PAGES * PAGE_SIZE)
    lay(memory, fd, writable=False)
    # A store by the kernel: the same fault, told as an error instead of by SIGSEGV.
    with pytest.raises(OSError, match="Bad address"):
        os.preadv(fd, [memoryview(memory)[:1]], 0)


def test_the_range_lives_as_long_as_the_last_array_into_it(fd: int) -> None:
    memory = kernel.reserve(PAGES * PAGE_SIZE)
    at, size = memory.address, len(memory)
    for page in range(0, PAGES, 2):
        kernel.map_file(
            at + page * PAGE_SIZE, PAGE_SIZE, fd, page * PAGE_SIZE, shared=False, writable=True
        )
    gone: list[list[str]] = []
    weakref.finalize(memory, lambda: gone.append(mapped(at, size)))
    whole = np.frombuffer(memory, np.uint8)
    with pytest.raises(BufferError):
        memory.close()
    last = whole[4 * PAGE_SIZE :].reshape(-1, PAGE_SIZE)[:, 3]
    del memory, whole
    gc.collect()
    assert last.tolist() == [4, 0, 6, 0, 8, 0, 10, 0, 12, 0, 14, 0]
    assert not gone
    assert len(mapped(at, size)) >= PAGES - 1
    del last
    gc.collect()
    assert gone == [[]], "what the finalizer releases must not be looked at any more"


def test_a_range_larger_than_memory_can_be_reserved_and_mapped(fd: int) -> None:
    size = 1 << 42
    memory = kernel.reserve(size)
    kernel.map_zero(memory.address, size, writable=True)
    os.truncate(fd, size)
    lay(memory, fd)
    memory[size - 1] = 1
    assert memory[PAGE_SIZE] == 1


def test_prefetch_raises_where_a_load_would_kill(fd: int) -> None:
    memory = kernel.reserve(2 * PAGES * PAGE_SIZE)
    lay(memory, fd)
    kernel.prefetch(memory.address, PAGES * PAGE_SIZE)
    with pytest.raises(OSError, match=r"madvise\(POPULATE_READ\)") as caught:
        kernel.prefetch(memory.address, len(memory))
    assert caught.value.errno == errno.EFAULT


def test_a_kernel_too_old_to_prefetch_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_MADV_POPULATE_READ", 9999)
    kernel.prefetch(kernel.reserve(PAGE_SIZE).address, PAGE_SIZE)


def test_failures_name_the_call_and_carry_errno(fd: int) -> None:
    at = kernel.reserve(PAGE_SIZE).address
    failures = {
        "mmap": lambda: kernel.map_file(at, PAGE_SIZE, fd, 1, shared=False, writable=True),
        "fallocate": lambda: kernel.allocate(fd, -1, 1),
    }
    for call, act in failures.items():
        with pytest.raises(OSError, match=call) as caught:
            act()
        assert caught.value.errno == errno.EINVAL
    with pytest.raises(OSError, match="mmap") as caught:
        kernel.reserve(1 << 60)
    assert caught.value.errno == errno.ENOMEM


# ---------------------------------------------------------------- written pages


def test_private_pages_are_found_across_pieces_of_the_pagemap(fd: int) -> None:
    pages = 3 * kernel._ENTRIES_PER_READ + 5
    os.truncate(fd, pages * PAGE_SIZE)
    memory = kernel.reserve(pages * PAGE_SIZE)
    lay(memory, fd)
    wanted = sorted({0, 1, pages - 1, *random.Random(1).sample(range(pages), 100)})
    for page in wanted:
        memory[page * PAGE_SIZE] = 1
    assert sum(memory[: 100 * PAGE_SIZE : PAGE_SIZE]) >= 2
    assert np.flatnonzero(kernel.pagemap_private(memory.address, len(memory))).tolist() == wanted


def test_memory_without_a_file_is_taken_page_by_page() -> None:
    """Where huge pages are the system's default, one store would write 512 pages."""
    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("a kernel without huge pages")
    memory = kernel.reserve(8 * PAGE_SIZE)
    for attempt in range(2):
        if attempt:
            kernel.map_zero(memory.address, 8 * PAGE_SIZE, writable=True)
        maps = Path("/proc/self/smaps").read_text()
        mine = maps[maps.index(f"{memory.address:x}-") :]
        flags = next(line for line in mine.splitlines() if line.startswith("VmFlags:"))
        assert "nh" in flags.split()


needs_userfault = pytest.mark.skipif(
    not kernel.probe().userfault, reason=kernel.probe().reasons.get("userfault", "")
)


@needs_userfault
@pytest.mark.parametrize("room", [1, 3, 1024])
def test_a_scan_with_more_ranges_than_room_is_whole(
    fd: int, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "_RANGES_PER_SCAN", room)
    memory = kernel.reserve(PAGES * PAGE_SIZE)
    lay(memory, fd)
    with contextlib.closing(kernel.Userfault()) as userfault:
        userfault.register(memory.address, len(memory))
        userfault.arm(memory.address, len(memory))
        for page in (0, 1, 4, 6, 7, 8, 10, 15):
            memory[page * PAGE_SIZE] = 1
        wanted = [[0, 2], [4, 5], [6, 9], [10, 11], [15, 16]]
        look = userfault.scan(memory.address, len(memory), arm=False)
        assert kernel.pages(look, memory.address).tolist() == wanted
        scan = userfault.scan(memory.address, len(memory))
        assert scan.dtype == np.int64
        assert kernel.pages(scan, memory.address).tolist() == wanted
        assert userfault.scan(memory.address, len(memory)).shape == (0, 3)
        assert userfault.scan(memory.address, 0).shape == (0, 3)


@needs_userfault
def test_long_runs_come_back_in_one_piece(fd: int) -> None:
    pages = 5000
    os.truncate(fd, pages * PAGE_SIZE)
    memory = kernel.reserve(pages * PAGE_SIZE)
    lay(memory, fd)
    kernel.map_file(memory.address + 99 * PAGE_SIZE, PAGE_SIZE, fd, 0, shared=False, writable=True)
    with contextlib.closing(kernel.Userfault()) as userfault:
        userfault.register(memory.address, len(memory))
        memory[: 2000 * PAGE_SIZE : PAGE_SIZE] = bytes(2000)
        assert not any(memory[2000 * PAGE_SIZE :: PAGE_SIZE])
        scan = userfault.scan(memory.address, len(memory), kernel.UNARMED)
        assert kernel.pages(scan, memory.address).tolist() == [[0, pages]]
        written = kernel.copies(scan)
        assert kernel.pages(written, memory.address).tolist() == [[0, 2000]]
        assert len(scan) > 1


@needs_userfault
def test_more_ranges_than_the_kernel_holds_at_once_are_found_once(fd: int) -> None:
    pages = 5000
    os.truncate(fd, pages * PAGE_SIZE)
    memory = kernel.reserve(pages * PAGE_SIZE)
    lay(memory, fd)
    with contextlib.closing(kernel.Userfault()) as userfault:
        userfault.register(memory.address, len(memory))
        userfault.arm(memory.address, len(memory))
        wanted = list(range(0, pages, 4))
        for page in wanted:
            memory[page * PAGE_SIZE] = 1
        assert len(userfault.scan(memory.address, len(memory), arm=False)) == len(wanted)
        scan = userfault.scan(memory.address, len(memory))
        assert kernel.pages(scan, memory.address)[:, 0].tolist() == wanted


@needs_userfault
def test_an_unregistered_range_is_refused(fd: int) -> None:
    memory = kernel.reserve(PAGES * PAGE_SIZE)
    with (
        contextlib.closing(kernel.Userfault()) as userfault,
        pytest.raises(PermissionError, match=r"ioctl\(PAGEMAP_SCAN\)"),
    ):
        userfault.scan(memory.address, len(memory))


@needs_userfault
def test_a_forked_child_is_refused() -> None:
    memory = kernel.reserve(PAGE_SIZE)
    with contextlib.closing(kernel.Userfault()) as userfault:
        userfault.register(memory.address, len(memory))

        def refused() -> bool:
            for act in (userfault.register, userfault.arm, userfault.scan):
                with pytest.raises(OSError, match="forked") as caught:
                    act(memory.address, len(memory))
                assert caught.value.errno == errno.EPERM
            return userfault.forked

        assert in_child(refused)
        assert not userfault.forked


# ---------------------------------------------------------------- locks


@pytest.mark.parametrize("offset", [0, 1, 12345, 1 << 62])
def test_locks_hold_between_descriptors_of_one_process(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "lock"
    one, two = (os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(2))
    assert kernel.lock_shared(one, offset)
    assert kernel.lock_shared(two, offset)
    assert not kernel.lock_exclusive(two, offset)
    kernel.unlock(one, offset)
    assert kernel.lock_exclusive(two, offset), "upgrades its own"
    assert not kernel.lock_shared(one, offset)
    assert kernel.lock_exclusive(one, offset + 1), "another byte"
    os.close(two)
    assert kernel.lock_exclusive(one, offset, wait=True)
    os.close(one)


def test_death_lets_go_and_a_waiter_gets_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    ours = os.open(path, os.O_RDWR | os.O_CREAT)
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        theirs = os.open(path, os.O_RDWR)
        os.write(ready[1], b"1" if kernel.lock_shared(theirs, 7) else b"0")
        os.read(go[0], 1)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.read(ready[0], 1) == b"1"
    assert not kernel.lock_exclusive(ours, 7)
    os.write(go[1], b"x")
    assert kernel.lock_exclusive(ours, 7, wait=True)
    os.waitpid(pid, 0)
    for end in (ours, *ready, *go):
        os.close(end)


def test_a_lock_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "lock", os.O_RDONLY | os.O_CREAT)
    with pytest.raises(OSError, match="F_OFD_SETLK") as caught:
        kernel.lock_exclusive(fd, 0)
    assert caught.value.errno == errno.EBADF
    os.close(fd)


# ---------------------------------------------------------------- file space


def test_allocate_reserves_and_keeps_the_size_when_told(fd: int) -> None:
    size, blocks = os.fstat(fd).st_size, os.fstat(fd).st_blocks
    kernel.allocate(fd, size, 1 << 20, keep_size=True)
    assert os.fstat(fd).st_size == size
    assert os.fstat(fd).st_blocks - blocks >= (1 << 20) // 512
    kernel.allocate(fd, size, 2 << 20)
    assert os.fstat(fd).st_size == size + (2 << 20)


def test_punch_gives_space_back_and_leaves_zeros(fd: int) -> None:
    kernel.allocate(fd, PAGES * PAGE_SIZE, 1 << 20)
    before = os.fstat(fd)
    kernel.punch_hole(fd, 0, before.st_size)
    after = os.fstat(fd)
    assert after.st_size == before.st_size
    assert after.st_blocks < before.st_blocks
    assert not any(os.pread(fd, after.st_size, 0))


def test_without_fallocate_space_is_still_reserved(
    fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object, **__: object) -> int:
        raise OSError(errno.EOPNOTSUPP, "fallocate: no")

    monkeypatch.setattr(kernel, "_call", unsupported)
    size = os.fstat(fd).st_size
    kernel.allocate(fd, size, PAGE_SIZE, keep_size=True)
    assert os.fstat(fd).st_size == size
    kernel.allocate(fd, size, PAGE_SIZE)
    assert os.fstat(fd).st_size == size + PAGE_SIZE


# ---------------------------------------------------------------- how much there is


def test_memory_figures_are_in_order() -> None:
    assert 0 < kernel.private_bytes() < kernel.total_memory()
    assert kernel.mapping_limit() >= 1024


def test_private_bytes_counts_broken_pages_only(fd: int) -> None:
    size = 64 << 20
    os.truncate(fd, size)
    memory = kernel.reserve(size)
    lay(memory, fd)
    before = kernel.private_bytes()
    kernel.prefetch(memory.address, size // 2)
    assert kernel.private_bytes() - before < size // 4
    np.frombuffer(memory, np.uint8)[::PAGE_SIZE] = 1
    assert kernel.private_bytes() - before > size // 2


def test_a_control_group_lowers_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_cgroup_limits", lambda: iter([1 << 24, 1 << 30]))
    assert kernel.total_memory() == 1 << 24


# ---------------------------------------------------------------- what is offered


@pytest.fixture
def fresh_probe() -> Iterator[None]:
    kernel.probe.cache_clear()
    yield
    kernel.probe.cache_clear()


@pytest.mark.usefixtures("fresh_probe")
def test_probe_says_why_something_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(kernel, "_SYS_USERFAULTFD", 100_000)
    found = kernel.probe()
    assert not found.userfault
    assert found.reasons == {"userfault": "userfaultfd: Function not implemented"}
    assert found.ofd_locks
    assert found.map_fixed
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.usefixtures("fresh_probe")
def test_probe_survives_a_kernel_that_offers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> int:
        raise PermissionError(errno.EPERM, "forbidden")

    monkeypatch.setattr(kernel, "_call", forbidden)
    found = kernel.probe()
    assert not any((found.userfault, found.pagemap, found.map_fixed))
    assert set(found.reasons) >= {"userfault", "pagemap", "map_fixed"}
    assert kernel.probe() is found


def test_page_size_is_the_systems() -> None:
    assert PAGE_SIZE == mmap.PAGESIZE == os.sysconf("SC_PAGE_SIZE")
