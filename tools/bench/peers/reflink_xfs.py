"""Reflink copies on XFS."""

from __future__ import annotations

from tools.bench.peers._reflink import Reflink


class ReflinkXfs(Reflink):
    title = "reflink on XFS"
    settings = "pwrite in place, FICLONE, fsync of the clone and its directory; loop, noatime"
    make = ("mkfs.xfs", "-q", "-m", "reflink=1")


PEER = ReflinkXfs
