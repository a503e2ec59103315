"""Does each tracker report every page written, and the exact one no others?"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import numpy as np
import numpy.typing as npt
import pytest

from pagestore import dirty, kernel
from pagestore.dirty import Tracker
from pagestore.errors import InvalidError
from pagestore.kernel import PAGE_SIZE

PAGES = (256 << 20) // PAGE_SIZE
WORKING = [
    name for name in ("userfault", "pagemap", "compare") if name not in kernel.probe().reasons
]
needs_userfault = pytest.mark.skipif(
    not kernel.probe().userfault, reason=kernel.probe().reasons.get("userfault", "")
)


@attrs.frozen
class Region:
    """A private file mapping, and the same as an array of pages."""

    fd: int
    memory: kernel.Memory
    pages: npt.NDArray[np.uint8]

    @property
    def address(self) -> int:
        return self.memory.address

    def lay(self, first: int, n: int) -> None:
        kernel.map_file(
            self.address + first * PAGE_SIZE,
            n * PAGE_SIZE,
            self.fd,
            first * PAGE_SIZE,
            shared=False,
            writable=True,
        )

    def watch(self, tracker: Tracker, first: int = 0, n: int = PAGES) -> None:
        tracker.watch(self.address + first * PAGE_SIZE, n * PAGE_SIZE)

    def written(self, tracker: Tracker, first: int = 0, n: int = PAGES) -> list[int]:
        """Page numbers of the region, from the ranges; which have to be in good order."""
        at, size = self.address + first * PAGE_SIZE, n * PAGE_SIZE
        pending = tracker.pending(at, size)
        ranges = tracker.written(at, size)
        assert ranges.dtype == np.int64
        assert (np.diff(ranges.ravel()) > 0).all(), "rising, not empty, not touching"
        assert not len(ranges) or (ranges[0, 0] >= 0 and ranges[-1, 1] <= n)
        found = [first + page for start, stop in ranges.tolist() for page in range(start, stop)]
        assert pending == len(found)
        return found


@pytest.fixture(scope="module")
def zeros(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A file for all tests, since none may change it."""
    fd = os.open(tmp_path_factory.mktemp("dirty") / "arena", os.O_RDWR | os.O_CREAT)
    os.truncate(fd, PAGES * PAGE_SIZE)
    yield fd
    assert not any(os.pread(fd, 1 << 20, 0))
    os.close(fd)


@pytest.fixture
def region(zeros: int) -> Region:
    memory = kernel.reserve(PAGES * PAGE_SIZE)
    region = Region(zeros, memory, np.frombuffer(memory, np.uint8).reshape(PAGES, PAGE_SIZE))
    region.lay(0, PAGES)
    return region


@pytest.fixture(params=WORKING)
def tracker(request: pytest.FixtureRequest) -> Iterator[Tracker]:
    with contextlib.closing(dirty.choose(request.param)) as tracker:
        yield tracker


@pytest.fixture
def exact() -> Iterator[Tracker]:
    with contextlib.closing(dirty.choose("userfault")) as tracker:
        yield tracker
        assert tracker.exact


def some_pages(n: int, seed: int) -> list[int]:
    return sorted(np.random.default_rng(seed).choice(PAGES, n, replace=False).tolist())


def in_child(act: Callable[[], bool]) -> bool:
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            code = 0 if act() else 1
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# ---------------------------------------------------------------- every tracker


@pytest.mark.parametrize("n", [0, 1, 100, 10_000])
def test_written_pages_are_reported(region: Region, tracker: Tracker, n: int) -> None:
    region.watch(tracker)
    region.pages[::3, 7].sum()
    earlier: set[int] = set()
    for turn in range(2):
        pages = some_pages(n, seed=turn)
        region.pages[pages, turn] = 1
        region.pages[::5, 9].sum()
        found = region.written(tracker)
        earlier.update(pages)
        if tracker.exact:
            assert found == pages
        elif tracker.name == "pagemap":
            assert found == sorted(earlier)
        else:
            assert found == list(range(PAGES))


def test_stores_by_the_kernel_are_seen(region: Region, tracker: Tracker, tmp_path: Path) -> None:
    region.watch(tracker)
    (tmp_path / "source").write_bytes(os.urandom(2 * PAGE_SIZE))
    with (tmp_path / "source").open("rb", buffering=0) as source:
        os.preadv(source.fileno(), [region.pages[11:13].reshape(-1).data], 0)
        os.readv(source.fileno(), [region.pages[500].data, region.pages[40].data])
    found = region.written(tracker)
    assert set(found) >= {11, 12, 40, 500}
    assert not tracker.exact or found == [11, 12, 40, 500]


def test_a_page_of_zeros_counts_as_any_other(region: Region, tracker: Tracker) -> None:
    kernel.map_zero(region.address, 1024 * PAGE_SIZE, writable=True)
    region.watch(tracker)
    region.pages[:1024, 0].sum()
    region.pages[[5, 900], 0] = 1
    found = region.written(tracker)
    assert set(found) >= {5, 900}
    assert not tracker.exact or found == [5, 900]


def test_only_the_range_asked_for_is_reported(region: Region, tracker: Tracker) -> None:
    region.watch(tracker)
    region.pages[[10, 20, 30, 31], 0] = 1
    found = region.written(tracker, 20, 11)
    assert found == ([20, 30] if tracker.name != "compare" else list(range(20, 31)))
    assert region.written(tracker, 40, 0) == []


# ---------------------------------------------------------------- the exact one


@needs_userfault
def test_what_is_reported_is_clean_and_pending_changes_nothing(
    region: Region, exact: Tracker
) -> None:
    region.watch(exact)
    region.pages[[3, 4, 9], 0] = 1
    assert exact.pending(region.address, len(region.memory)) == 3
    assert region.written(exact) == [3, 4, 9]
    assert region.written(exact) == []
    region.pages[4, 0] = 2
    assert region.written(exact) == [4]


@needs_userfault
def test_a_remapped_part_is_clean_once_watched_again(region: Region, exact: Tracker) -> None:
    region.watch(exact)
    region.pages[[1, 50, 60, 99], 0] = 1
    region.lay(50, 10)
    region.watch(exact, 50, 10)
    assert region.written(exact) == [1, 60, 99]
    region.pages[[55, 98], 0] = 1
    assert region.written(exact) == [55, 98]


@needs_userfault
def test_a_range_partly_registered_can_be_watched(region: Region, exact: Tracker) -> None:
    region.watch(exact, 100, 50)
    region.pages[[120, 300], 0] = 1
    region.lay(110, 5)
    kernel.map_zero(region.address + 130 * PAGE_SIZE, PAGE_SIZE, writable=True)
    region.watch(exact, 0, 400)
    assert region.written(exact, 0, 400) == []
    region.pages[[0, 112, 130, 399], 0] = 1
    assert region.written(exact, 0, 400) == [0, 112, 130, 399]


@needs_userfault
def test_watching_a_part_leaves_the_rest_as_it_is(region: Region, exact: Tracker) -> None:
    region.watch(exact)
    region.pages[[10, 20], 0] = 1
    region.watch(exact, 20, 1)
    assert region.written(exact) == [10]


@needs_userfault
def test_many_pieces_are_tracked_as_one_range(region: Region, exact: Tracker) -> None:
    for page in range(0, 2000, 2):
        at = region.address + page * PAGE_SIZE
        kernel.map_file(
            at, PAGE_SIZE, region.fd, (page + 5000) * PAGE_SIZE, shared=False, writable=True
        )
    region.watch(exact)
    region.pages[1:1500:7, 0] = 1
    assert region.written(exact) == list(range(1, 1500, 7))


@needs_userfault
def test_dropped_pages_stay_clean(region: Region, exact: Tracker) -> None:
    region.watch(exact)
    region.pages[:8, 0] = 1
    region.written(exact)
    region.memory.madvise(mmap.MADV_DONTNEED, 0, 8 * PAGE_SIZE)
    assert region.pages[:8, 0].sum() == 0
    assert region.written(exact) == []


@needs_userfault
def test_stores_while_scanning_are_in_one_answer_or_the_next(
    region: Region, exact: Tracker
) -> None:
    region.watch(exact)
    pages = some_pages(4000, seed=3)
    writer = threading.Thread(target=lambda: [region.pages[page].fill(1) for page in pages])
    writer.start()
    found: list[int] = []
    while writer.is_alive():
        ranges = exact.written(region.address, len(region.memory))
        assert (np.diff(ranges.ravel()) > 0).all()
        found.extend(page for start, stop in ranges.tolist() for page in range(start, stop))
    writer.join()
    found.extend(region.written(exact))
    assert set(found) == set(pages)


@needs_userfault
def test_a_forked_child_is_refused_but_can_start_anew(region: Region, exact: Tracker) -> None:
    region.watch(exact)
    size = len(region.memory)

    def refused_then_anew() -> bool:
        for act in (exact.watch, exact.written, exact.pending):
            with pytest.raises(OSError, match="forked") as caught:
                act(region.address, size)
            assert caught.value.errno == errno.EPERM
        anew = dirty.choose("userfault")
        region.watch(anew)
        region.pages[77, 0] = 1
        return region.written(anew) == [77] and anew.exact

    region.pages[5, 0] = 1
    assert in_child(refused_then_anew)
    region.pages[6, 0] = 1
    assert region.written(exact) == [5, 6], "the parent goes on"


@needs_userfault
def test_trackers_of_a_process_share_one_descriptor() -> None:
    first = dirty.choose("userfault")
    before = len(os.listdir("/proc/self/fd"))
    more = [dirty.choose("userfault") for _ in range(10)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert all(tracker is not first for tracker in more)


@needs_userfault
def test_a_refusal_never_loses_a_write(region: Region) -> None:
    tracker = dirty.choose("userfault")
    region.watch(tracker)
    region.pages[1, 0] = 1
    region.lay(50, 10)
    region.pages[99, 0] = 1
    with pytest.warns(RuntimeWarning, match="PAGEMAP_SCAN"):
        ranges = tracker.written(region.address, len(region.memory))
    assert ranges.tolist() == [[0, PAGES]]
    assert not tracker.exact
    assert tracker.pending(region.address, len(region.memory)) == PAGES


# ---------------------------------------------------------------- page tables and huge pages

TABLE = PAGE_SIZE // 8  # pages that one page table maps
HUGE_PAGE = TABLE * PAGE_SIZE


@pytest.fixture(params=["copies", "whole", "usual", "eager"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracker]:
    """The exact tracker: asking for copies, armed whole from its first scan on, as the time that
    a scan takes has it, and as on a kernel that does not find gaps.
    """
    with contextlib.closing(dirty.choose("userfault")) as tracker:
        userfault = tracker._userfault  # type: ignore[attr-defined]
        if request.param == "eager":
            monkeypatch.setattr(userfault, "finds_gaps", False)
        elif request.param != "usual":
            short = 60.0 if request.param == "copies" else -60.0
            monkeypatch.setattr("pagestore.dirty.userfault.SHORT", short)
        yield tracker
        assert tracker.exact


@needs_userfault
def test_pages_that_were_only_read_are_not_reported(region: Region, either: Tracker) -> None:
    region.watch(either)
    region.pages[[0, 600, 601, 9000], 0].sum()
    assert region.written(either) == []
    region.pages[[1, 601], 0] = 1
    region.pages[2:1500, 0].sum()
    assert region.written(either) == [1, 601]
    region.pages[:20_000, 0].sum()
    assert region.written(either) == []
    region.pages[[0, 1, 2, 600, 19_999], 0] += 1
    region.pages[20_000:, 0].sum()
    assert region.written(either) == [0, 1, 2, 600, 19_999]
    assert region.written(either) == []


@needs_userfault
def test_nothing_is_prepared_for_pages_that_were_never_touched(
    region: Region, exact: Tracker
) -> None:
    userfault = exact._userfault  # type: ignore[attr-defined]
    userfault.register(region.address, len(region.memory))
    holes_are_written = len(userfault.scan(region.address, len(region.memory), arm=False)) > 0
    assert userfault.finds_gaps == holes_are_written, "Linux was mended in both together"
    if not userfault.finds_gaps:
        pytest.skip("this kernel arms page tables, or nothing")
    before = page_tables()
    region.watch(exact)
    region.pages[[5, 60_000], 0] = 1
    assert region.written(exact) == [5, 60_000]
    assert page_tables() - before < 64 << 10


def page_tables() -> int:
    """Bytes of page tables of this process."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmPTE" in line) << 10


@needs_userfault
def test_zeros_that_were_only_read_are_not_reported(region: Region, either: Tracker) -> None:
    """Neither the page of zeros nor, where huge pages are the default, a huge one."""
    kernel.map_zero(region.address, PAGES // 2 * PAGE_SIZE, writable=True)
    region.watch(either)
    region.pages[:, 0].sum()
    assert region.written(either) == []
    region.pages[[3, 700, 40_000], 0] = 1
    region.pages[:, 0].sum()
    assert region.written(either) == [3, 700, 40_000]


@needs_userfault
@pytest.mark.parametrize("filled", [TABLE, 40 * TABLE, PAGES])
def test_full_page_tables_are_as_exact(region: Region, either: Tracker, filled: int) -> None:
    region.watch(either)
    start = PAGES // 2 - filled // 2
    region.pages[start : start + filled, 0] = 1
    assert region.written(either) == list(range(start, start + filled))
    for seed in range(3):
        pages = some_pages(100, seed)
        region.pages[pages, 0] += 1
        region.pages[::2, 1].sum()
        assert region.written(either) == pages


@needs_userfault
def test_ranges_that_share_a_page_table_are_apart(region: Region, either: Tracker) -> None:
    split = TABLE * 8 + 100
    region.watch(either, 0, split)
    region.watch(either, split, PAGES - split)
    region.pages[:split:50, 0] = 1
    assert region.written(either, 0, split) == list(range(0, split, 50))
    region.pages[:, 0].sum()
    region.pages[split + 1, 0] = 1
    assert region.written(either, split, PAGES - split) == [split + 1]
    assert region.written(either, 0, split) == []


@needs_userfault
def test_a_part_laid_anew_is_as_exact(region: Region, either: Tracker) -> None:
    """What was known of its page tables is void, also of those at its ends."""
    region.watch(either)
    region.pages[:, 0] = 1
    region.written(either)
    first, n = 3 * TABLE + 7, 40 * TABLE
    region.lay(first, n)
    region.watch(either, first, n // 2 + 9)
    region.watch(either, first + n // 2 + 9, n - n // 2 - 9)
    region.pages[:, 0].sum()
    region.pages[[first - 1, first, first + n], 0] = 3
    assert region.written(either) == [first - 1, first, first + n]


@needs_userfault
def test_pages_written_before_they_were_watched_are_clean(region: Region, either: Tracker) -> None:
    region.pages[::3, 0] = 1
    region.watch(either)
    region.pages[:, 0].sum()
    assert region.written(either) == []
    region.pages[[3, 4], 0] = 2
    assert region.written(either) == [3, 4]


@needs_userfault
def test_a_part_that_is_gone_is_passed_over(region: Region, either: Tracker) -> None:
    region.watch(either)
    region.pages[[5, 5000, 50_000], 0] = 1
    hole = region.address + 4000 * PAGE_SIZE
    kernel._call("munmap", ctypes.c_void_p(hole), ctypes.c_size_t(2000 * PAGE_SIZE))
    assert region.written(either) == [5, 50_000]
    kernel.map_zero(hole, 2000 * PAGE_SIZE, writable=True)
    region.watch(either, 4000, 2000)
    region.pages[[4001, 5000], 0] = 1
    assert region.written(either) == [4001, 5000]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A file that the page cache holds in huge pages, where the file system can do that."""
    fd = os.open(tmp_path_factory.mktemp("dirty") / "data", os.O_RDWR | os.O_CREAT)
    block = np.arange(HUGE_PAGE * 4, dtype=np.uint8)
    for i in range(8):
        assert os.pwrite(fd, block, i * len(block)) == len(block)
    yield fd
    os.close(fd)


@needs_userfault
def test_huge_pages_of_the_file_are_tracked_page_by_page(data: int, either: Tracker) -> None:
    size = os.fstat(data).st_size
    memory = kernel.reserve(size + HUGE_PAGE)
    offset = -memory.address % HUGE_PAGE
    kernel.map_file(memory.address + offset, size, data, 0, shared=False, writable=True)
    pages = np.frombuffer(memory, np.uint8, size, offset).reshape(-1, PAGE_SIZE)
    region = Region(data, memory, pages)

    def written() -> list[int]:
        ranges = either.written(memory.address + offset, size)
        return [page for start, stop in ranges.tolist() for page in range(start, stop)]

    either.watch(memory.address + offset, size)
    region.pages[:, 0].sum()
    assert written() == []
    for turn in range(3):
        region.pages[[7 + turn, 900, 2000], 0] += 1
        region.pages[:, 0].sum()
        assert written() == [7 + turn, 900, 2000]
        region.pages[:, 0].sum()
        assert written() == []


@needs_userfault
@pytest.mark.parametrize("huge", [False, True])
def test_no_store_of_a_busy_writer_is_ever_left_out(
    region: Region, either: Tracker, data: int, huge: bool
) -> None:
    """A copy that takes over what is reported, and nothing else, ends up the same."""
    pages, at = region.pages[: 32 * TABLE], region.address
    if huge:
        at += -at % HUGE_PAGE
        pages = region.pages.reshape(-1)[at - region.address :][: 32 * HUGE_PAGE]
        pages = pages.reshape(-1, PAGE_SIZE)
        kernel.map_file(at, pages.nbytes, data, 0, shared=False, writable=True)
    either.watch(at, pages.nbytes)
    copy = pages.copy()
    stop = threading.Event()

    def write(seed: int) -> None:
        rng, column = np.random.default_rng(seed), 8 * seed
        while not stop.is_set():
            some = rng.integers(0, len(pages), 40)
            pages[some, column] += 1
            pages[rng.integers(0, len(pages)), column + 1 :: 8][:400] += 1
            pages[rng.integers(0, len(pages), 20), 0].sum()

    writers = [threading.Thread(target=write, args=(seed,)) for seed in (1, 2)]
    for writer in writers:
        writer.start()
    try:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            for first, last in either.written(at, pages.nbytes).tolist():
                copy[first:last] = pages[first:last]
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    for first, last in either.written(at, pages.nbytes).tolist():
        copy[first:last] = pages[first:last]
    assert np.flatnonzero((copy != pages).any(axis=1)).tolist() == []


@needs_userfault
def test_what_was_armed_whole_is_void_once_more_is_laid_anew(
    region: Region, exact: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pagestore.dirty.userfault.SHORT", -60.0)
    region.watch(exact, 0, 1000)
    assert region.written(exact, 0, 1000) == []
    monkeypatch.setattr("pagestore.dirty.userfault.SHORT", 60.0)
    region.lay(0, 2000)
    region.watch(exact, 0, 2000)
    region.pages[:1000:3, 0].sum()
    region.pages[[4, 700], 0] = 1
    assert region.written(exact, 0, 1000) == [4, 700]


@needs_userfault
@pytest.mark.parametrize("tables", [False, True], ids=["untouched", "touched"])
def test_no_store_is_left_out_while_a_range_is_armed_whole(
    region: Region, exact: Tracker, monkeypatch: pytest.MonkeyPatch, tables: bool
) -> None:
    """Each page is written once: what is left out once is left out for good."""
    monkeypatch.setattr("pagestore.dirty.userfault.SHORT", -60.0)
    pages, size = region.pages[: 64 * TABLE], 64 * TABLE * PAGE_SIZE
    for trial in range(12):
        region.lay(0, len(pages) + 1)
        region.watch(exact, 0, len(pages) + 1)  # more than is armed: that is void
        if tables:
            pages[::TABLE, 0].sum()
        order = np.random.default_rng(trial).permutation(len(pages))

        def write(mine: np.ndarray) -> None:
            for page in mine:
                pages[page, 1] = 7

        writers = [threading.Thread(target=write, args=(order[i::2],)) for i in (0, 1)]
        for writer in writers:
            writer.start()
        found: set[int] = set()
        while any(writer.is_alive() for writer in writers):
            for first, last in exact.written(region.address, size).tolist():
                found.update(range(first, last))
        for first, last in exact.written(region.address, size).tolist():
            found.update(range(first, last))
        assert len(found) == len(pages), sorted(set(range(len(pages))) - found)[:20]


# ---------------------------------------------------------------- the choice


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def only(**missing: str) -> None:
        found = kernel.probe()._replace(reasons=missing)
        monkeypatch.setattr(kernel, "probe", lambda: found)

    return only


def test_auto_takes_the_best_that_works(offered: Callable[..., None]) -> None:
    if kernel.probe().userfault:
        assert dirty.choose("auto").name == "userfault"
    offered(userfault="forbidden")
    assert dirty.choose("auto").name == "pagemap"
    offered(userfault="forbidden", pagemap="no /proc")
    assert dirty.choose().name == "compare"


def test_a_tracker_that_does_not_work_here_is_refused(offered: Callable[..., None]) -> None:
    offered(userfault="userfaultfd: Operation not permitted")
    with pytest.raises(InvalidError, match="Operation not permitted"):
        dirty.choose("userfault")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InvalidError, match="auto, userfault, pagemap, compare"):
        dirty.choose("guess")
