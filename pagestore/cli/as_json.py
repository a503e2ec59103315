"""What a command prints with ``--json``: one object a line, as docs/inspect.md says.

Sizes are in bytes, times in UTC, checksums in hexadecimal. A number that JSON does not know is a
string. Lines are written as they are found, so a reader need not wait for the last.
"""

import json
import math
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import click
import numpy as np
from attrs import asdict, has

from pagestore.cli.output import for_program

json_option = click.option(
    "--json", "as_json", is_flag=True, help="One JSON object a line, as docs/inspect.md says."
)


def write(objects: Iterable[Mapping[str, Any]]) -> None:
    """Print each object on a line of its own."""
    for one in objects:
        sys.stdout.write(json.dumps(plain(one), allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """Return a value in what JSON has: other values of the library and of NumPy become so."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime):
        return for_program(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if has(type(value)):
        return plain(asdict(value, recurse=False))
    if isinstance(value, np.ndarray | np.generic):
        return str(value) if value.dtype.kind in "mM" else plain(_of_python(value))
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, complex):
        return [plain(value.real), plain(value.imag)]
    return str(value)


def _of_python(value: Any) -> Any:
    """A value of NumPy as Python's own; of a long double what a double has of it."""
    found = value.tolist()
    if isinstance(found, np.complexfloating):
        return complex(found)
    return float(found) if isinstance(found, np.floating) else found
