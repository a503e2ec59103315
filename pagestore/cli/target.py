"""A file to be written: beside its place first, renamed when it is whole."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format


@contextmanager
def open_target(name: str) -> Iterator[BinaryIO]:
    """Open `name` (``-``: standard output); if the block fails, it is as it was before."""
    if name == "-":
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    elif os.path.exists(name) and not os.path.isfile(name):
        with open(name, "wb") as file:  # a device or a pipe: nothing to rename over
            yield file
    else:
        with _renamed(Path(os.path.realpath(name))) as file:
            yield file


@contextmanager
def _renamed(path: Path) -> Iterator[BinaryIO]:
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    with suppress(FileNotFoundError):
        beside.unlink()
    try:
        with _made(beside, path) as file:
            if path.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
            yield file
        os.replace(beside, path)
    finally:
        with suppress(FileNotFoundError):
            beside.unlink()


def _made(beside: Path, path: Path) -> BinaryIO:
    try:
        return open(beside, "xb")
    except OSError as error:  # named for the file the user asked for
        raise OSError(error.errno, error.strerror, str(path)) from None


def write_npy_header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Write what stands before the contents of a ``.npy`` file."""
    header = {
        "descr": npy_format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    try:
        npy_format.write_array_header_1_0(file, header)
    except ValueError:  # too long for 1.0: a dtype of very many fields
        npy_format.write_array_header_2_0(file, header)
