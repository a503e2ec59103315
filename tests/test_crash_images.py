"""The store on real file systems, copied as it runs: a few cycles of `tools.crash.images`."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from pagestore import arena
from tools.crash import images, mounting, rehearse
from tools.crash.images import SETTINGS, ImageReport, Setting, torture
from tools.crash.rehearse import Outcome

CYCLES = 10
SECONDS = 60.0  # CYCLES end it long before


def tried(setting: Setting, report: ImageReport) -> ImageReport:
    if setting.name in report.skipped:
        pytest.skip(report.skipped[setting.name])
    return report


class Traces:
    """What this test's own working directories leave: others may be at it as well."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directories: list[Path] = []
        make = images._working_directory

        def noted() -> Path:
            self.directories.append(make())
            return self.directories[-1]

        monkeypatch.setattr(images, "_working_directory", noted)

    def left(self) -> list[str]:
        texts = Path("/proc/mounts").read_text().splitlines()
        for file in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):  # it went meanwhile
                texts.append(file.read_text())
        mounts = [text for text in texts if any(path.name in text for path in self.directories)]
        return mounts + [str(path) for path in self.directories if path.exists()]

    def gone(self) -> bool:
        end = time.monotonic() + 10
        while self.left() and time.monotonic() < end:  # the kernel clears up behind us
            time.sleep(0.05)
        return bool(self.directories) and not self.left()


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Traces:
    return Traces(monkeypatch)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_copy_is_what_was_acknowledged(setting: Setting, tmp_path: Path, traces: Traces):
    report = tried(setting, torture(1, SECONDS, tmp_path, settings=[setting], most=CYCLES))
    assert report.failures == []
    assert report.cycles == {setting.name: CYCLES}
    assert list(tmp_path.iterdir()) == []
    assert traces.gone()


def without_sync(workload: str, top: Path, log: Path) -> Outcome:
    arena.FileIO.fdatasync = lambda self, fd: None  # type: ignore[method-assign]
    return rehearse.perform(workload, top, log)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_missing_sync_is_found(setting: Setting, tmp_path: Path):
    report = tried(
        setting,
        torture(
            1, SECONDS, tmp_path / "keep", settings=[setting], perform=without_sync,
            stop_at_first=True,
        ),
    )  # fmt: skip
    assert len(report.failures) == 1
    kept = {path.suffix: path for path in (tmp_path / "keep").iterdir()}
    assert report.failures[0].what in kept[".txt"].read_text()
    assert kept[".image"].stat().st_size > 1 << 25


def test_only_the_cached_disk_forgets_what_was_not_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(mounting._OPTIONS, "ext4", "barrier=0")  # it then flushes nothing
    failures = []
    for setting in (Setting("ext4", "ext4"), Setting("ext4 cached", "ext4", cached=True)):
        report = torture(1, SECONDS, tmp_path, settings=[setting], most=CYCLES, stop_at_first=True)
        failures.append(len(tried(setting, report).failures))
    assert failures == [0, 1]


def failing(workload: str, top: Path, log: Path) -> Outcome:
    raise ValueError("this workload fails")


def test_a_workload_that_fails_is_a_failure(tmp_path: Path):
    report = tried(
        SETTINGS[0], torture(1, SECONDS, tmp_path, settings=SETTINGS[:1], perform=failing)
    )
    assert "this workload fails" in report.failures[0].what


def test_an_interrupt_leaves_nothing(tmp_path: Path, traces: Traces):
    tried(SETTINGS[0], torture(1, SECONDS, tmp_path, settings=SETTINGS[:1], most=1))
    signal.setitimer(signal.ITIMER_REAL, 1.5)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            torture(1, SECONDS, tmp_path)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert traces.gone()


def test_it_says_why_it_was_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    report = torture(1, SECONDS, tmp_path)
    assert set(report.skipped.values()) == {"only root may mount"}
    assert report.skipped.keys() == {setting.name for setting in SETTINGS}


def test_a_program_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tried(SETTINGS[0], torture(1, SECONDS, tmp_path, settings=SETTINGS[:1], most=1))
    monkeypatch.setitem(mounting._FORMATS, "ext4", ("mkfs.nothing",))
    report = torture(1, SECONDS, tmp_path, settings=SETTINGS[:2], most=1)
    assert report.skipped == {"ext4": "there is no mkfs.nothing"}
    assert report.cycles == {"xfs": 1}


def test_a_store_that_kills_its_reader_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(images, "judge", lambda *_: os.kill(os.getpid(), signal.SIGBUS))
    report = tried(SETTINGS[0], torture(1, SECONDS, tmp_path, settings=SETTINGS[:1], most=1))
    assert report.failures[0].what == f"died of signal {signal.SIGBUS.value}"
