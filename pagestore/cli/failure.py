"""How a command ends when it does not end well.

Owns the exit statuses: 128 with ``fatal: ...`` for an error, 1 for "looked and found
something" (`check`, `diff --exit-code`), 2 for wrong usage (click's own), and a quiet end
for Ctrl-C and for a reader that went away (``pagestore log s.ps | head``).
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, NoReturn

import click
from click.exceptions import Exit

import pagestore

FATAL = 128
FOUND = 1
_INTERRUPTED = 128 + signal.SIGINT
_BROKEN_PIPE = 128 + signal.SIGPIPE
_TERMINATED = 128 + signal.SIGTERM


class Fatal(click.ClickException):
    """An error the user can read and act on."""

    exit_code = FATAL

    def show(self, file: IO[Any] | None = None) -> None:
        """Say it on standard error as git does."""
        click.echo(f"fatal: {self.format_message()}", file=file or sys.stderr)


class Quiet(Exit):
    """The end, with a status, of a command that has nothing more to say."""


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the library and the system raise into `Fatal` or `Quiet`."""
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        raise Quiet(_INTERRUPTED) from None
    except BrokenPipeError:
        _stop_writing()
        raise Quiet(_BROKEN_PIPE) from None
    except pagestore.PagestoreError as error:
        raise Fatal(said(error)) from error
    except OSError as error:
        raise Fatal(_said_by_system(error)) from error
    except MemoryError as error:
        raise Fatal("out of memory") from error


def said(error: BaseException) -> str:
    """Return an error's message; a KeyError's own text would come in quotes."""
    if error.args and isinstance(error.args[0], str) and not isinstance(error, OSError):
        return error.args[0]
    return str(error) or type(error).__name__


def tidy_when_terminated() -> None:
    """Let SIGTERM unwind the stack, so that temporary files go."""

    def stop(*_: object) -> NoReturn:
        raise SystemExit(_TERMINATED)

    signal.signal(signal.SIGTERM, stop)


def end(status: int) -> int:
    """Return `status`, or die of the signal it stands for, so that a shell's loop stops too."""
    if status in (_INTERRUPTED, _BROKEN_PIPE, _TERMINATED):
        _die_of(status - 128)
    return status


def _die_of(number: int) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise AssertionError("a default signal does not return")


def _stop_writing() -> None:
    """Point standard output at nothing, so that the flush at exit does not fail again."""
    with suppress(OSError, ValueError):  # not a real file: nothing will be flushed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _said_by_system(error: OSError) -> str:
    if error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return error.strerror or str(error)
