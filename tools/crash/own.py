"""Crash tests for programs that use pagestore: their own workload, recorded and enumerated.

A workload is a function ``work(path)`` that does what the program does with the store at `path`.
Whatever pagestore has made durable when a call returns is acknowledged. A second function,
``check(store)``, may raise if what a crash has left makes no sense to the program.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pagestore.engine import Engine, Write
from pagestore.store import Store
from tools.crash.ledger import NO_STORE, survey
from tools.crash.rehearse import STORE, Outcome, marker
from tools.crash.stage import marks_path


def function(spec: str) -> Callable[..., Any]:
    """What ``"module:name"`` refers to."""
    module, _, name = spec.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def perform(spec: str, top: Path, log: Path) -> Outcome:
    """Run a program's workload; in a process of the stage."""
    mark = marker(marks_path(log))
    path = top / STORE
    if not os.path.lexists(path):
        mark(NO_STORE)
    _mark_each_transaction(mark)
    function(spec)(path)
    return Outcome()


def _mark_each_transaction(mark: Callable[[str], None]) -> None:
    """Say after each transaction of this process what the store then holds."""
    write = Engine.write

    @contextlib.contextmanager
    def noted(self: Engine, *, spare: bool = False) -> Iterator[Write]:
        with write(self, spare=spare) as transaction:
            yield transaction
        mark(survey(Store(self, writable=False)).dump())

    Engine.write = noted  # type: ignore[method-assign]
