"""Another process that uses the same store, does what it is told, and can be killed."""

from __future__ import annotations

import contextlib
import multiprocessing
from multiprocessing.connection import Connection
from typing import Any

import pagestore
from tests.shrunk import shrunk

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["numpy", "lmdb", "pagestore", "tests.worker"])


class _Server:
    """The other side: one store, perhaps a view and a workspace."""

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        self.store = pagestore.open(path, "r+", **options)
        self.view: pagestore.SnapshotView | None = None
        self.arrays: dict[str, Any] = {}
        self.space: pagestore.Workspace | None = None

    def look(self, ref: Any) -> int:
        self.forget()
        self.view = self.store.view(ref)
        self.arrays = {name: self.view[name] for name in self.view}
        return self.view.version.id

    def contents(self) -> dict[str, bytes]:
        return {name: array.tobytes() for name, array in self.arrays.items()}

    def forget(self) -> None:
        self.arrays = {}
        if self.view:
            self.view.close()
        self.view = None

    def commit(self, branch: str, name: str, offset: int, data: bytes) -> tuple[int, Any]:
        with contextlib.closing(self.store.begin(branch)) as space:
            space[name]
            space.write(name, offset, data)
            version = space.commit()
            return version.id, version.time

    def flush(self, branch: str, name: str, data: bytes) -> int:
        """Write early, and never commit."""
        if self.space:
            self.space.close()
        self.space = self.store.begin(branch)
        self.space.write(name, 0, data)
        self.space.flush()
        return self.space.version.id

    def drop(self) -> None:
        if self.space:
            self.space.close()
        self.space = None

    def compact(self) -> int:
        return self.store.compact().moved_pages


def serve(pipe: Connection, path: str, options: dict[str, Any], tree: Any) -> None:
    with shrunk(tree) if tree else contextlib.nullcontext():
        server = _Server(path, options)
        while True:
            try:
                call, arguments = pipe.recv()
            except EOFError:
                return
            try:
                answer = getattr(server, call)(*arguments)
            except Exception as error:
                answer = error
            pipe.send(answer)


class Worker:
    """This side: calls go to the other process, one at a time."""

    def __init__(self, path: Any, options: dict[str, Any], tree: Any) -> None:
        self._pipe, other = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=serve, args=(other, str(path), options, tree), daemon=True
        )
        self._process.start()
        other.close()

    def __call__(self, call: str, *arguments: Any) -> Any:
        self._pipe.send((call, arguments))
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kill(self) -> None:
        """SIGKILL: nothing is cleaned up."""
        self._process.kill()
        self._process.join()
        self._pipe.close()
