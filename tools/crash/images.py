"""Real file systems on loop devices, copied under a running store: each copy is a crash.

The image that the store's file system lies in is a file on an XFS that copies by reference. A copy
is made at a random moment and takes no time: the disk as it is between two writes. It is mounted,
so that the file system recovers as it would after a power cut, and the store in it is judged.

Two disks are tried with each file system:

- One that keeps all that was written to it (``ext4``, ``xfs``), flushed or not. What is lost is
  what the file system had not sent to it: dirty pages, and an open transaction of its journal.
- One with a cache (``ext4 cached``, ``xfs cached``) that forgets what was not flushed. The cache is
  the page cache of one more XFS in between, which holds the image and is on the disk that is
  copied; a flush of the store's file system is an ``fsync`` there. What was not flushed is lost
  with that XFS, all of it or, where some of it was written back before, a part.

Needs root; `ImageReport.skipped` says what could not be done, and why. A child does it all, with
mounts of its own: whatever happens to it, they go with it. No mount point is in another mount, or
the inner one, whose image is in the outer, would hold both for ever if the child were killed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import random
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import define, field, frozen

from tools.crash import rehearse
from tools.crash.ledger import Known
from tools.crash.mounting import (
    UnavailableError,
    clone,
    make_image,
    mounted,
    private_mounts,
    write_back,
)
from tools.crash.rehearse import STORE
from tools.crash.running import Perform, Runs, die_with, running
from tools.crash.verdict import judge

MiB = 1 << 20
SIZES = {"ext4": 64 * MiB, "xfs": 300 * MiB}  # XFS takes no less
CACHE_SIZE = 700 * MiB
OUTER_SIZE = 8 << 30
ROOM = 2 << 30  # wanted of memory: else the images go to the temporary directory
SECONDS = 20  # for one copy: then it hangs
PAUSE = 0.06  # seconds between two copies, at the most
KEPT = 3  # images of failures; of further ones only the words
PIECE = 64 << 10  # of a cached disk, written back or not


@frozen
class Setting:
    """A file system and the disk it is on."""

    name: str
    kind: str
    cached: bool = False


SETTINGS = (
    Setting("ext4", "ext4"),
    Setting("xfs", "xfs"),
    Setting("ext4 cached", "ext4", cached=True),
    Setting("xfs cached", "xfs", cached=True),
)


@frozen
class ImageFailure:
    """A copy that is not what it must be, or a workload that failed.

    Attributes
    ----------
    cycle : int
        Of its setting, counted from 1.
    what, words : str
        What is wrong, and when it was.
    """

    setting: str
    cycle: int
    what: str
    words: str


@define
class ImageReport:
    """What came of it.

    Attributes
    ----------
    cycle_seconds : dict
        Setting -> time of each cycle, that is of each copy that was judged, without the pauses.
    failures : list of ImageFailure
    skipped : dict
        Setting -> why it was not tried.
    """

    cycle_seconds: dict[str, list[float]] = field(factory=dict)
    failures: list[ImageFailure] = field(factory=list)
    skipped: dict[str, str] = field(factory=dict)

    @property
    def cycles(self) -> dict[str, int]:
        return {name: len(seconds) for name, seconds in self.cycle_seconds.items()}


def torture(
    seed: int,
    seconds: float,
    keep: Path,
    *,
    settings: Sequence[Setting] = SETTINGS,
    most: int | None = None,
    perform: Perform = rehearse.perform,
    stop_at_first: bool = False,
) -> ImageReport:
    """Copy and judge for some time, an equal share of it on each setting.

    Parameters
    ----------
    keep : Path
        What a failure leaves goes there.
    most : int, optional
        Cycles on one setting.
    perform : callable
        Does a workload, in a forked child.
    stop_at_first : bool
        A failure ends everything.
    """
    work = _working_directory()
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(read)
        plan = _Plan(seed, seconds / len(settings), most, perform, stop_at_first)
        _torture_here(work, write, keep, settings, plan)
    os.close(write)
    try:
        with os.fdopen(read, "rb") as said:
            raw = said.read()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        shutil.rmtree(work, ignore_errors=True)
    result = pickle.loads(raw) if raw else "the process that mounts has died"
    if not isinstance(result, ImageReport):
        raise AssertionError(result)
    return result


def _working_directory() -> Path:
    """In memory, if there is room."""
    shm = "/dev/shm"
    roomy = os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > ROOM
    return Path(tempfile.mkdtemp(prefix="pagestore-images-", dir=shm if roomy else None))


@frozen
class _Plan:
    """What `torture` was asked to do on each setting."""

    seed: int
    seconds: float
    most: int | None
    perform: Perform
    stop_at_first: bool


def _torture_here(
    work: Path, write: int, keep: Path, settings: Sequence[Setting], plan: _Plan
) -> None:
    """The child: says what came of it, and is gone."""
    result: ImageReport | str = ""
    parent = os.getppid()
    try:
        os.setpgid(0, 0)  # an interrupt is for the parent alone, which ends this process
        die_with(parent)
        result = _every_setting(work, keep, settings, plan)
    except BaseException:
        result = traceback.format_exc()
    finally:
        with os.fdopen(write, "wb") as say:
            say.write(pickle.dumps(result))
        os._exit(0)


def _every_setting(work: Path, keep: Path, settings: Sequence[Setting], plan: _Plan) -> ImageReport:
    report = ImageReport()
    with contextlib.ExitStack() as stack:
        try:
            outer = stack.enter_context(_outer(work))
        except UnavailableError as error:
            report.skipped = {setting.name: str(error) for setting in settings}
            return report
        for setting in settings:
            try:
                _Torture(setting, plan, outer, work, keep, report).run()
            except UnavailableError as error:
                report.skipped[setting.name] = str(error)
    return report


@contextlib.contextmanager
def _outer(work: Path) -> Iterator[Path]:
    """A mounted file system that copies by reference."""
    if os.geteuid():
        raise UnavailableError("only root may mount")
    private_mounts()
    make_image(work / "outer", "xfs", OUTER_SIZE)
    with mounted(work / "outer", "xfs", work / "mnt") as outer:
        yield outer


def _make_disk(setting: Setting, image: Path, where: Path) -> None:
    if not setting.cached:
        make_image(image, setting.kind, SIZES[setting.kind])
        return
    make_image(image, "xfs", CACHE_SIZE)
    with mounted(image, "xfs", where):
        make_image(where / "image", setting.kind, SIZES[setting.kind])


@contextlib.contextmanager
def _disk(setting: Setting, image: Path, where: Path) -> Iterator[Path]:
    """Mount an image as a setting has it: the place where the store is."""
    with contextlib.ExitStack() as stack:
        if setting.cached:
            cache = stack.enter_context(mounted(image, "xfs", _cache(where)))
            image = cache / "image"
        yield stack.enter_context(mounted(image, setting.kind, where))


def _cache(where: Path) -> Path:
    return where.with_name(where.name + ".cache")


class _Torture:
    """One setting, and the workloads on it."""

    def __init__(
        self,
        setting: Setting,
        plan: _Plan,
        outer: Path,
        mounts: Path,
        keep: Path,
        report: ImageReport,
    ) -> None:
        self.setting, self.plan, self.keep, self.report = setting, plan, keep, report
        self.rng = random.Random(f"{plan.seed} {setting.name}")
        self.work = outer / setting.name.replace(" ", "-")
        self.place, self.copied = mounts / "store", mounts / "copied"
        self.kept = 0
        self.seconds: list[float] = []

    def run(self) -> None:
        self.work.mkdir()
        image = self.work / "disk"
        _make_disk(self.setting, image, self.place)
        self.report.cycle_seconds[self.setting.name] = self.seconds
        with (
            _disk(self.setting, image, self.place),
            running(self.place, self.work, self.rng.random(), self.plan.perform) as runs,
        ):
            end = time.monotonic() + self.plan.seconds
            while time.monotonic() < end and not self._enough():
                time.sleep(self.rng.uniform(0, PAUSE))
                if not self._cycle(image, runs):
                    return

    def _enough(self) -> bool:
        failed = self.plan.stop_at_first and bool(self.report.failures)
        return failed or len(self.seconds) == self.plan.most

    def _cycle(self, image: Path, runs: Runs) -> bool:
        """Copy and judge; say whether the workloads go on."""
        if self.setting.cached:
            self._lose_less()
        run = runs.newest()
        before = runs.said(run)
        began = time.monotonic()
        clone(image, self.work / "copy")
        copied = time.monotonic()
        after = runs.said(run)
        if run >= 0 and runs.newest() <= run + 1:  # else its directory need not be in the copy
            known = runs.known(run, after)
            words = f"{runs.workload(run)}, when {before} to {after} steps were acknowledged"
            allowed = known[max(0, before - 1) : after + 1] or [None]
            ever = {v: c for k in known[: after + 1] if k for v, c in k.versions.items()}
            waited = time.monotonic() - copied
            with runs.paused():
                clone(self.work / "copy", self.work / "untouched")
                what = self._look(run, allowed, ever)
            self.seconds.append(time.monotonic() - began - waited)
            if what:
                self._failed(what, words, self.work / "untouched")
        if not runs.alive():
            self._failed(runs.error(), "a workload failed", None)
        return runs.alive()

    def _lose_less(self) -> None:
        """Write a random part of the disk's cache back."""
        image = _cache(self.place) / "image"
        share = self.rng.choice((0.0, 0.0, 0.2, 0.5, 0.8))
        places = range(0, image.stat().st_size, PIECE) if share else ()
        write_back(image, ((place, PIECE) for place in places if self.rng.random() < share))

    def _look(self, run: int, allowed: Sequence[Known | None], ever: dict[int, str]) -> str:
        try:
            with _disk(self.setting, self.work / "copy", self.copied) as place:
                return _judged(place / str(run) / STORE, allowed, ever, run)
        except OSError as error:
            return f"the copy cannot be used: {error}"

    def _failed(self, what: str, words: str, image: Path | None) -> None:
        cycle = len(self.seconds)
        self.report.failures.append(ImageFailure(self.setting.name, cycle, what, words))
        self.keep.mkdir(parents=True, exist_ok=True)
        name = f"{self.work.name}-{cycle}"
        text = f"seed {self.plan.seed}: {words}\n{what}\n"
        (self.keep / f"{name}.txt").write_text(text)
        if image and self.kept < KEPT:
            self.kept += 1
            _copy_sparse(image, self.keep / f"{name}.image")


def _copy_sparse(source: Path, target: Path) -> None:
    zeros = bytes(PIECE)
    with source.open("rb") as original, target.open("wb") as copy:
        while piece := original.read(PIECE):
            if piece == zeros:
                copy.seek(PIECE, os.SEEK_CUR)
            else:
                copy.write(piece)
        copy.truncate(source.stat().st_size)


def _judged(path: Path, allowed: Sequence[Known | None], ever: dict[int, str], turn: int) -> str:
    """What is wrong with a store, judged in a child that may die of it; or ""."""
    parent = os.getpid()
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(read)
        try:
            die_with(parent)
            faulthandler.disable()  # such a death is an answer
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.alarm(SECONDS)
            what = judge(path, allowed, ever, turn) or ""
        except BaseException:
            what = f"not of the tree: {traceback.format_exc()}"
        finally:
            with os.fdopen(write, "w") as say:
                say.write(what)
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as said:
        what = said.read()
    status = os.waitpid(pid, 0)[1]
    return f"died of signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else what
