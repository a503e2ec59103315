"""apsw's speed test on a database in a store: its options, ``--database FILE`` among them.

``python -m tools.sqlite.speed --apsw --correctness --database /tmp/x/db``; with ``--vfs unix`` it
is the stock file system, for comparison.
"""

from __future__ import annotations

import runpy
import sys

from tools.sqlite.suite import Files

NAME = "pagestore-files"

if __name__ == "__main__":
    registered = Files(NAME)
    sys.argv[1:1] = ["--vfs", NAME]
    runpy.run_module("apsw.speedtest", run_name="__main__")
