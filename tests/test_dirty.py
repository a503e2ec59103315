"""Does each tracker report every page written, and the exact one no others?"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import threading
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
