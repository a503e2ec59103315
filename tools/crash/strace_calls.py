"""System calls as `strace -f -y -xx` writes them: one `Call` each, in the order they returned.

With ``-xx`` every byte of a string is written ``\\x61``, so that no quote, bracket or comma within
one can be taken for the format's own.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator

from attrs import define, frozen

from tools.crash.record import UnsoundError

_LINE = re.compile(rb"(\d+) +(.*)")
_RESUMED = re.compile(rb"<\.\.\. \w+ resumed>")
_UNFINISHED = b" <unfinished ...>"
_TEXT = re.compile(rb'"([\\x0-9a-f]*)"(\.\.\.)?|<([\\x0-9a-f]+)>(\(deleted\))?')
_SHAPE = re.compile(r"(\w+)\((.*)\) += (-?\w+|\?)(?: (E\w+))?", re.DOTALL)
DELETED = " (deleted)"


@frozen
class Call:
    """A call that returned.

    Attributes
    ----------
    thread : int
    began, ended : int
        Numbers of the lines where it was entered and where it returned.
    name : str
    args : list of str
        Without what is in `strings` and `paths`.
    result, error : int
        `error` is errno, or 0.
    strings : list of bytes
        Names and data, in order.
    paths : list of str
        Of descriptors, in order; that of a returned one is the last.
    """

    thread: int
    began: int
    ended: int
    name: str
    args: list[str]
    result: int
    error: int
    strings: list[bytes]
    paths: list[str]

    def number(self, place: int) -> int:
        """An argument that is a number; its name is dropped if it has one (`AT_FDCWD`)."""
        text = self.args[place]
        return int(text, 0) if text.lstrip("-")[:1].isdigit() else -1

    def flags(self, place: int) -> set[str]:
        return set(self.args[place].split("|")) if place < len(self.args) else set()


@frozen
class Exit:
    """The end of a thread."""


@define
class Begun:
    """A call that has not returned yet."""

    line: int
    text: bytes

    @property
    def name(self) -> str:
        return self.text.partition(b"(")[0].decode()


class Reader:
    """Reads lines; `begun` holds, by thread, what has not returned by then."""

    def __init__(self) -> None:
        self.begun: dict[int, Begun] = {}

    def calls(self, lines: Iterable[bytes]) -> Iterator[tuple[int, Call | Exit | None]]:
        """Thread of each line, and the call that it ends, if it ends one, or the thread's end."""
        for number, line in enumerate(lines):
            match = _LINE.match(line)
            if match is None:
                raise UnsoundError(f"strace wrote {line[:100]!r}")
            yield int(match[1]), self._call(int(match[1]), number, match[2].rstrip())

    def _call(self, thread: int, number: int, text: bytes) -> Call | Exit | None:
        if text.startswith(b"+++"):
            self.begun.pop(thread, None)
            return Exit()
        if text.startswith(b"---"):
            return None
        if text.endswith(_UNFINISHED):
            self.begun[thread] = Begun(number, text.removesuffix(_UNFINISHED))
            return None
        began = number
        if resumed := _RESUMED.match(text):
            begun = self.begun.pop(thread)
            began, text = begun.line, begun.text + text[resumed.end() :]
        return _parse(thread, began, number, text)


def _parse(thread: int, began: int, ended: int, text: bytes) -> Call | None:
    strings, paths = list[bytes](), list[str]()

    def take(match: re.Match[bytes]) -> bytes:
        if match[2]:
            raise UnsoundError("strace has cut a string")
        if match[3] is None:
            strings.append(_unescape(match[1]))
        else:
            paths.append(_unescape(match[3]).decode() + DELETED * bool(match[4]))
        return b""

    match = _SHAPE.match(_TEXT.sub(take, text).decode())
    if match is None:
        raise UnsoundError(f"strace wrote {text[:100]!r}")
    name, args, result, error = match.groups()
    if result == "?":  # it is made once more, or its process has died
        return None
    number = getattr(errno, error, -1) if error else 0
    return Call(
        thread, began, ended, name, args.split(", "), int(result, 0), number, strings, paths
    )


def _unescape(text: bytes) -> bytes:
    return bytes.fromhex(text.replace(b"\\x", b"").decode())
