"""What does keeping a version cost on the disk, beyond the pages that it changed?"""

from __future__ import annotations

from collections.abc import Iterator

import pagestore
from tools.bench.harness import Row, allocated
from tools.bench.workload import PAGE, REGION, Bench, Changes

SLACK = 32 << 10


def run(bench: Bench) -> Iterator[Row]:
    for k, versions in ((4, 200), (100, 200), (bench.many, 50)):
        with bench.copy(bench.large) as store, store.begin() as ws:
            changes = Changes(ws, ws[REGION])
            changes.make(k)
            ws.snapshot("before")
            before = _used(store)
            for i in range(versions):
                changes.make(k)
                ws.snapshot(f"v{i}")
            pages, catalog, disk, files = (
                (now - then) / versions for now, then in zip(_used(store), before, strict=True)
            )
        limit = k * PAGE * 1.1 + SLACK
        note = (
            f"pages {pages / 1024:,.1f} KiB + metadata {catalog / 1024:,.1f} KiB "
            f"({catalog / k:.0f} bytes a page; {files / 1024:,.1f} KiB allocated)"
        )
        yield Row(f"space of a version of {k:,} pages", pages + catalog, limit, 1.0, "KiB", note)
        yield Row("    the same as du sees it (arena grown ahead)", disk, limit, None, "KiB")


def _used(store: pagestore.Store) -> tuple[int, int, int, int]:
    """Referred pages, catalog length, the whole directory and the catalog on the disk."""
    stats = store.stats()
    return (
        stats.referred_bytes,
        stats.metadata_bytes,
        allocated(store.path),
        allocated(store.path / "catalog"),
    )
