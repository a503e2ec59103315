"""Modules that most programs never run, imported when something of them is first asked for.

Owns the one way to put an import off. It is for walking a damaged catalog, checking, counting and
compacting, which together cost a program's start as much as everything that it does use
(docs/decisions/023). Who uses it imports the module for the type checker too, which is what the
contract of layers looks at.
"""

from __future__ import annotations

import importlib
from typing import Any


class Later:
    """Stands for a module; the first look at an attribute imports it."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._module), name)
