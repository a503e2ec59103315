"""Reflink copies on btrfs."""

from __future__ import annotations

from tools.bench.peers._reflink import Reflink


class ReflinkBtrfs(Reflink):
    title = "reflink on btrfs"
    settings = (
        "pwrite in place, FICLONE, fsync of the clone and its directory; loop, noatime; "
        "metadata once (-m single)"
    )
    make = ("mkfs.btrfs", "-q", "-m", "single")


PEER = ReflinkBtrfs
