"""apsw's speed test on databases in a store and in files: its options, and the rows must be equal.

``python -m tools.sqlite.speed --apsw --correctness --database /tmp/x/db`` runs it through the stock
file system, then through a store, and says whether every statement returned the same rows. apsw's
own test of correctness is on databases in memory, whatever the file system: here they are like the
others.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import apsw
import xxhash

from tools.sqlite.suite import Files

STOCK, OURS = "unix", "pagestore-files"
Rows = list[tuple[int, str]]  # of each connection: how many it returned, and their digest


def run(vfs: str, arguments: list[str]) -> Rows:
    """Run apsw's test; return what its connections to databases of this file system returned."""
    connections: list[Connection] = []

    class Connection(apsw.Connection):
        def __init__(self, filename: str, **options: Any) -> None:
            if filename == ":memory:":
                filename = str(Path(_database(arguments)).with_name(f"memory-{len(connections)}"))
                Path(filename).unlink(missing_ok=True)
            super().__init__(filename, **options)
            assert self.open_vfs == vfs
            self.count, self.digest = 0, xxhash.xxh3_128()
            self.row_trace = self.note
            connections.append(self)

        def note(self, cursor: apsw.Cursor, row: Any) -> Any:
            self.count += 1
            self.digest.update(repr(row).encode())
            return row

    argv = ["speedtest", "--vfs", vfs, *arguments]
    with mock.patch("apsw.Connection", Connection), mock.patch("sys.argv", argv):
        runpy.run_module("apsw.speedtest", run_name="__main__")
    for connection in connections:
        connection.close()
    return [(c.count, c.digest.hexdigest()) for c in connections]


def _database(arguments: list[str]) -> str:
    return arguments[arguments.index("--database") + 1]


def main(arguments: list[str]) -> None:
    registered = Files(OURS)
    stock, ours = run(STOCK, arguments), run(OURS, arguments)
    registered.unregister()
    if stock != ours:
        sys.exit(f"other rows than with files: {ours} instead of {stock}")
    rows = sum(count for count, _ in ours)
    print(f"the same {rows:,} rows through {len(ours)} connections each")


if __name__ == "__main__":
    main(sys.argv[1:])
