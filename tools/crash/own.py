"""Crash tests for programs that use pagestore: their own workload, recorded and enumerated.

A workload is a function ``work(path, acknowledged)``. It does what the program does with the store
at `path`, and calls ``acknowledged(store)`` whenever what it has done so far must survive. A second
function, ``check(store)``, may raise if what a crash has left makes no sense to the program.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pagestore
from tools.crash import rehearse
from tools.crash.ledger import NO_STORE, survey
from tools.crash.rehearse import STORE, Outcome, Record, marker
from tools.crash.stage import Stage, marks_path


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

    def acknowledged(store: pagestore.Store) -> None:
        mark(survey(store).dump())

    function(spec)(path, acknowledged)
    return Outcome()


def record(stage: Stage, spec: str, top: Path, log: Path) -> Record:
    """Record a program's workload, ``"module:work"``, on the files below `top`."""
    return rehearse.record(stage, spec, top, log, perform=perform)[0]
