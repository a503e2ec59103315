"""Makes operations of system calls, in the order in which they returned.

Follows descriptors as the kernel has them: a description has a position, which duplicates and
forked children share. Inodes get numbers of their own: one that is freed comes again, and of a file
that is gone nobody can ask it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from attrs import define, field

from tools.crash.record import DIRECTORY, FILE, Kind, Op, UnsoundError
from tools.crash.stage import marks_path
from tools.crash.strace_calls import DELETED, Call, Exit, Reader


@define
class _Description:
    """What descriptors lead to: a position in a file."""

    file: int
    position: int = 0
    append: bool = False
    dsync: bool = False


@define
class _Process:
    """What threads share and forked children get a copy of."""

    cwd: str
    fds: dict[int, _Description] = field(factory=dict)
    fleeting: set[int] = field(factory=set)  # closed by execve

    def copy(self) -> _Process:
        return _Process(self.cwd, self.fds.copy(), self.fleeting.copy())

    def hold(self, fd: int, description: _Description, fleeting: bool) -> None:
        self.fds[fd] = description
        (self.fleeting.add if fleeting else self.fleeting.discard)(fd)


class Follower:
    """Makes operations of calls.

    Parameters
    ----------
    top, log : Path
        As for `rehearse.record`; what is below `top` now is where the calls begin.
    cwd : Path
        Where the first process begins.
    """

    def __init__(self, top: Path, log: Path, cwd: Path) -> None:
        self._top, self._marks = str(top), str(marks_path(log))
        paths = [top, *top.rglob("*")]
        self._numbers = {str(path): path.lstat().st_ino for path in paths}
        self._directories = {path.lstat().st_ino for path in paths if path.is_dir()}
        self._sizes = {p.lstat().st_ino: p.lstat().st_size for p in paths if not p.is_dir()}
        self._next = max(self._numbers.values()) + 1
        self._cwd = str(cwd)
        self._processes: dict[int, _Process] = {}
        self._early: set[int] = set()  # were seen before the call that made them returned
        self._reader = Reader()
        self._ended: dict[int, int] = {}  # line where the last operation on a file returned

    # ------------------------------------------------------------------ processes, descriptors

    def follow(self, lines: Iterable[bytes]) -> Iterator[Op]:
        """The operations, from all that strace wrote."""
        for thread, call in self._reader.calls(lines):
            if thread not in self._processes:
                self._processes[thread] = self._born(thread)
            if isinstance(call, Exit):
                del self._processes[thread]  # its number may come again
            elif call is not None:
                yield from self._ops(call)

    def _born(self, thread: int) -> _Process:
        """State of a thread of which no call told that it was made."""
        if not self._processes:
            return _Process(self._cwd)
        making = [t for t, begun in self._reader.begun.items() if begun.name in _FORKS]
        if len(making) != 1:
            raise UnsoundError("it cannot be told who made a process")
        self._early.add(thread)
        return self._child(making[0], self._reader.begun[making[0]].text.decode(errors="replace"))

    def _child(self, parent: int, flags: str) -> _Process:
        process = self._processes[parent]
        return process if "CLONE_FILES" in flags else process.copy()

    def _ops(self, call: Call) -> Iterator[Op]:
        for op in FOLLOWED[call.name](self, call):
            if op.kind is not Kind.MARK:
                self._in_order(call, op)
            if op.kind in FILE and (op.data or not op.error):
                self._resize(op)
            yield op

    def _in_order(self, call: Call, op: Op) -> None:
        directory = op.kind in DIRECTORY or op.inode in self._directories
        key = 0 if directory else op.inode
        if call.began < self._ended.get(key, -1):
            raise UnsoundError(f"two calls about {op.path} at once: their order is not known")
        self._ended[key] = call.ended

    def _resize(self, op: Op) -> None:
        size = self._sizes.get(op.inode, 0)
        if op.kind is Kind.RESIZE:
            size = op.size
        elif op.kind is Kind.ALLOCATE:
            size = max(size, op.offset + op.size)
        elif op.kind is Kind.WRITE:
            size = max(size, op.offset + len(op.data))
        self._sizes[op.inode] = size

    def _process(self, call: Call) -> _Process:
        return self._processes[call.thread]

    def _below(self, path: str) -> bool:
        return path == self._top or path.startswith(self._top + "/")

    def _short(self, path: str) -> str:
        return path[len(self._top) :]

    def _watched(self, call: Call) -> str | None:
        """Path of a call's descriptor, if it is one that is watched."""
        path = call.paths[0] if call.paths else ""
        return path if self._below(path) or path == self._marks else None

    def _number(self, path: str) -> int:
        """The file of a descriptor's path."""
        if path not in self._numbers:
            raise UnsoundError(f"nobody made {path}")
        return self._numbers[path]

    def _description(self, call: Call, path: str) -> _Description:
        found = self._process(call).fds.get(call.number(0))
        if found is None or found.file != self._number(path):
            raise UnsoundError(f"it is not known how {path} was opened")
        return found

    def _named(self, call: Call, name: int, at: int | None) -> str:
        """Absolute form of a path that is given to a call; relative to its `at`-th descriptor."""
        base = self._process(call).cwd if at is None or at >= len(call.paths) else call.paths[at]
        return os.path.normpath(os.path.join(base, os.fsdecode(call.strings[name])))

    def _fork(self, call: Call) -> Iterable[Op]:
        if call.result in self._early:
            self._early.remove(call.result)
        elif not call.error:
            self._processes[call.result] = self._child(call.thread, ", ".join(call.args))
        return ()

    def _exec(self, call: Call) -> Iterable[Op]:
        process = self._process(call)
        if not call.error:
            for fd in process.fleeting:
                process.fds.pop(fd, None)
            process.fleeting.clear()
        return ()

    def _chdir(self, call: Call) -> Iterable[Op]:
        if not call.error:
            named = call.name == "chdir"
            self._process(call).cwd = self._named(call, 0, None) if named else call.paths[0]
        return ()

    def _close(self, call: Call) -> Iterable[Op]:
        self._process(call).fds.pop(call.number(0), None)
        return ()

    def _close_range(self, call: Call) -> Iterable[Op]:
        first, last = call.number(0), call.number(1)
        process = self._process(call)
        chosen = {fd for fd in process.fds if first <= fd <= last}
        if "CLOSE_RANGE_CLOEXEC" in call.args[2]:
            process.fleeting |= chosen
        elif not call.error:
            process.fds = {fd: d for fd, d in process.fds.items() if fd not in chosen}
        return ()

    def _dup(self, call: Call) -> Iterable[Op]:
        process = self._process(call)
        description = process.fds.get(call.number(0))
        if call.error:
            return ()
        process.fds.pop(call.result, None)
        if description is not None:
            fleeting = "O_CLOEXEC" in call.args[-1] or "CLOEXEC" in call.args[1:2]
            process.hold(call.result, description, fleeting)
        return ()

    def _fcntl(self, call: Call) -> Iterable[Op]:
        process, what = self._process(call), call.args[1]
        fd, description = call.number(0), process.fds.get(call.number(0))
        if call.error or description is None:
            return ()
        if what.startswith("F_DUPFD"):
            process.hold(call.result, description, what.endswith("CLOEXEC"))
        elif what == "F_SETFL":
            description.append = "O_APPEND" in call.flags(2)
        elif what == "F_SETFD":
            process.hold(fd, description, "FD_CLOEXEC" in call.flags(2))
        return ()

    def _seek(self, call: Call) -> Iterable[Op]:
        description = self._process(call).fds.get(call.number(0))
        if description is not None and not call.error:
            description.position = call.result
        return ()

    def _read(self, call: Call) -> Iterable[Op]:
        description = self._process(call).fds.get(call.number(0))
        if description is not None and call.result > 0:
            description.position += call.result
        return ()

    # -------------------------------------------------------------------------------- files

    def _write(self, call: Call) -> Iterable[Op]:
        path = self._watched(call)
        if path is None:
            return
        data = b"".join(call.strings)
        if path == self._marks:
            yield Op(Kind.MARK, "", size=len(data), data=data)
            return
        description = self._description(call, path)
        done = data[: max(0, call.result)]
        placed = call.name.startswith("pwrite")
        offset = call.number(3 if call.name == "pwrite64" else -1) if placed else 0
        if description.append:
            offset = self._sizes[description.file]
        elif not placed:
            offset = description.position
        if not placed:
            description.position = offset + len(done)
        yield Op(
            Kind.WRITE, self._short(path), description.file, offset, len(data),
            description.dsync, call.error, done,
        )  # fmt: skip

    def _sized(self, kind: Kind, call: Call, path: str, offset: int, size: int) -> Iterable[Op]:
        yield Op(kind, self._short(path), self._number(path), offset, size, error=call.error)

    def _truncate(self, call: Call) -> Iterable[Op]:
        if call.name == "ftruncate":
            path = self._watched(call)
            return self._sized(Kind.RESIZE, call, path, 0, call.number(1)) if path else ()
        path = self._named(call, 0, None)
        known = path in self._numbers and not call.error
        return self._sized(Kind.RESIZE, call, path, 0, call.number(1)) if known else ()

    def _allocate(self, call: Call) -> Iterable[Op]:
        path, mode = self._watched(call), call.flags(1)
        if path is None:
            return ()
        if "FALLOC_FL_PUNCH_HOLE" in mode:
            kind = Kind.PUNCH
        elif mode - {"0", "FALLOC_FL_KEEP_SIZE"}:
            kind = Kind.UNKNOWN
        else:
            kind = Kind.ALLOCATE if mode == {"0"} else Kind.RESERVE
        return self._sized(kind, call, path, call.number(2), call.number(3))

    def _sync(self, call: Call) -> Iterable[Op]:
        path = self._watched(call)
        return self._sized(Kind.SYNC, call, path, 0, 0) if path else ()

    def _map(self, call: Call) -> Iterable[Op]:
        path = self._watched(call)
        shared = call.flags(3) & {"MAP_SHARED", "MAP_SHARED_VALIDATE"}
        writable = shared and "PROT_WRITE" in call.flags(2)
        return self._sized(Kind.SHARED_MAP, call, path, 0, 0) if path and writable else ()

    def _copied(self, call: Call) -> Iterable[Op]:
        """Data that went from one descriptor to another."""
        path = call.paths[0 if call.name == "sendfile" else -1] if call.paths else ""
        if self._below(path) and not call.error:
            yield Op(Kind.UNKNOWN, self._short(path))

    def _ring(self, call: Call) -> Iterable[Op]:
        if not call.error:
            raise UnsoundError("what goes through io_uring is not followed")
        return ()

    def _unknown(self, call: Call) -> Iterable[Op]:
        """A call that may change a file that is watched, in a way that is not followed."""
        names = [self._named(call, n, None) for n in range(len(call.strings))]
        for path in dict.fromkeys([*call.paths, *names]):
            if self._below(path) and not call.error:
                yield Op(Kind.UNKNOWN, self._short(path))

    # -------------------------------------------------------------------------- directories

    def _open(self, call: Call) -> Iterable[Op]:
        flags = (
            {"O_CREAT", "O_WRONLY", "O_TRUNC"}
            if call.name == "creat"
            else call.flags(1 if call.name == "open" else 2)
        )
        path = self._named(call, 0, 0 if call.name == "openat" else None)
        if call.error or not self._below(path):
            return
        if "O_TMPFILE" in flags:
            yield Op(Kind.UNKNOWN, self._short(path))
            return
        creates = "O_CREAT" in flags and path not in self._numbers
        if creates:
            self._new(path)
        number = self._number(path)
        dsync = bool(flags & {"O_DSYNC", "O_SYNC"})
        description = _Description(number, 0, "O_APPEND" in flags, dsync)
        self._process(call).hold(call.result, description, "O_CLOEXEC" in flags)
        if creates or "O_TRUNC" in flags:
            yield Op(Kind.CREATE if creates else Kind.RESIZE, self._short(path), number)

    def _new(self, path: str) -> int:
        self._numbers[path] = self._next
        self._sizes[self._next] = 0
        self._next += 1
        return self._numbers[path]

    def _mkdir(self, call: Call) -> Iterable[Op]:
        path = self._named(call, 0, 0 if call.name == "mkdirat" else None)
        if not self._below(path):
            return
        if not call.error:
            self._directories.add(self._new(path))
        yield Op(Kind.MKDIR, self._short(path), self._numbers.get(path, 0), error=call.error)

    def _remove(self, call: Call) -> Iterable[Op]:
        path = self._named(call, 0, 0 if call.name == "unlinkat" else None)
        if not self._below(path):
            return
        directory = call.name == "rmdir" or "AT_REMOVEDIR" in call.args[-1]
        number = self._numbers.get(path, 0)
        if not call.error:
            self._numbers[path + DELETED] = self._numbers.pop(path)
        yield Op(
            Kind.RMDIR if directory else Kind.UNLINK, self._short(path), number, error=call.error
        )

    def _rename(self, call: Call) -> Iterable[Op]:
        at = (None, None) if call.name == "rename" else (0, 1)
        source, target = self._named(call, 0, at[0]), self._named(call, 1, at[1])
        inside = [path for path in (source, target) if self._below(path)]
        if not inside:
            return
        plain = call.name != "renameat2" or call.args[-1] == "0"
        if len(inside) < 2 or not plain:
            yield Op(Kind.UNKNOWN, self._short(inside[0]), error=call.error)
            return
        if not call.error:
            self._move(source, target)
        number = self._numbers.get(target, 0)
        data = self._short(target).encode()
        yield Op(Kind.RENAME, self._short(source), number, error=call.error, data=data)

    def _move(self, source: str, target: str) -> None:
        if target in self._numbers:
            self._numbers[target + DELETED] = self._numbers[target]
        for path in [p for p in self._numbers if p == source or p.startswith(source + "/")]:
            self._numbers[target + path[len(source) :]] = self._numbers.pop(path)


Follow = Callable[[Follower, Call], Iterable[Op]]
_METHODS: dict[Follow, str] = {
    Follower._fork: "fork vfork clone clone3",
    Follower._exec: "execve execveat",
    Follower._chdir: "chdir fchdir",
    Follower._close: "close",
    Follower._close_range: "close_range",
    Follower._dup: "dup dup2 dup3",
    Follower._fcntl: "fcntl",
    Follower._seek: "lseek",
    Follower._read: "read readv",
    Follower._write: "write writev pwrite64 pwritev",
    Follower._truncate: "ftruncate truncate",
    Follower._allocate: "fallocate",
    Follower._sync: "fsync fdatasync",
    Follower._map: "mmap",
    Follower._open: "open openat creat",
    Follower._mkdir: "mkdir mkdirat",
    Follower._remove: "unlink unlinkat rmdir",
    Follower._rename: "rename renameat renameat2",
    Follower._copied: "sendfile copy_file_range splice",
    Follower._unknown: "pwritev2 openat2 link linkat symlink symlinkat mknod mknodat",
    Follower._ring: "io_uring_setup",
}
FOLLOWED = {name: follow for follow, names in _METHODS.items() for name in names.split()}
_FORKS = set(_METHODS[Follower._fork].split())
