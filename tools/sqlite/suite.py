"""Run apsw's own tests in a directory: ``stock|pagestore DIRECTORY [TEST...]``.

With ``pagestore`` databases are in a store where the tests expect files. In place of each lies a
file, with what the database was when it was last closed: the tests read it, delete it, and put
others there. Prints a line of JSON: the outcome of each test.
"""

from __future__ import annotations

import json
import sys
import unittest
from typing import Any

import apsw
import apsw.tests.__main__

import pagestore
from pagestore.sqlite import vfs
from pagestore.sqlite.file import DatabaseFile

theirs: Any = apsw.tests.__main__


class Files(vfs.PagestoreVFS):
    """A file's database is the region of its name, in the store of its directory."""

    def place(self, name: str | apsw.URIFilename | None) -> vfs.Place:
        path = super().place(name).store
        return vfs.Place(path.parent / "store.ps", path.name, "main", None)

    opened = 0

    def _open(self, place: vfs.Place, flags: list[int]) -> DatabaseFile:
        path = place.store.parent / place.name
        if path.is_dir():
            raise apsw.CantOpenError(f"{path} is a directory")
        with pagestore.open(place.store) as store, store.begin() as ws:
            if not path.exists() and place.name in ws:
                ws.delete(place.name)
            if path.exists() and place.name not in ws:
                ws.create(place.name, 0)
                content = path.read_bytes()
                ws.truncate(place.name, len(content))
                ws.write(place.name, 0, content)
        file = super()._open(place, flags)
        Files.opened += 1
        path.touch()
        close = file.xClose

        def export_and_close() -> None:
            if path.exists():
                path.write_bytes(file.xRead(file.xFileSize(), 0))
            close()

        file.xClose = export_and_close  # type: ignore[method-assign]
        return file


class Outcomes(unittest.TestResult):
    """What became of each test."""

    def __init__(self, *, ours: bool) -> None:
        super().__init__()
        self.ours = ours
        self.files: list[Files] = []  # all: a connection in memory may still point to an old one
        self.outcomes: dict[str, str] = {}
        self.showAll = False  # what a text result has, and theirs looks at

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        if self.ours:  # a test that shuts SQLite down leaves it with the stock default
            if self.files:
                self.files[-1].unregister()
            self.files.append(Files("pagestore-files", default=True))

    def addSuccess(self, test: unittest.TestCase) -> None:
        self.outcomes.setdefault(_name(test), "passed")

    def addFailure(self, test: Any, err: Any) -> None:
        super().addFailure(test, err)
        self.outcomes[_name(test)] = "failed"

    def addError(self, test: Any, err: Any) -> None:
        super().addError(test, err)
        self.outcomes[_name(test)] = "failed"

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.outcomes[_name(test)] = "skipped"

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.outcomes[_name(test)] = "failed"


def _name(test: unittest.TestCase) -> str:
    return test.id().removeprefix("apsw.tests.__main__.")


def main(which: str, directory: str, *tests: str) -> None:
    """Run all tests, or some, quickly: leaks and profiles are apsw's own business."""
    theirs.MEMLEAKITERATIONS, theirs.PROFILESTEPS = 5, 1000
    theirs.TESTFILEPREFIX = directory + "/"
    sys.stdout = sys.stderr
    theirs.setup()
    loader, result = unittest.TestLoader(), Outcomes(ours=which == "pagestore")
    suite = (
        loader.loadTestsFromNames(tests, theirs) if tests else loader.loadTestsFromModule(theirs)
    )
    suite.run(result)
    for test, trace in [*result.failures, *result.errors]:
        print(f"----- {test}\n{trace}")
    print(Files.opened, "databases were opened")
    print(json.dumps(result.outcomes), file=sys.__stdout__)


if __name__ == "__main__":
    main(*sys.argv[1:])
