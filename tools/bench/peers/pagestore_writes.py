"""pagestore where the program says which bytes it writes and reads, instead of using an array."""

from __future__ import annotations

from tools.bench.peers import PAGE, Pages, Rows
from tools.bench.peers.pagestore_arrays import REGION, PagestoreArrays


class PagestoreWrites(PagestoreArrays):
    title = "pagestore, `ws.write`"
    works = ("W1", "W2", "W5", "W8", "W10")  # reading much is the same
    imports = ""
    start = """
import sys, pagestore
with pagestore.open(sys.argv[1] + "/store", "r") as store, store.view(sys.argv[2]) as view:
    print(view.read("a", 0, 1)[0])
"""

    def _use(self) -> None:
        pass  # an array that was handed out would be looked through at each commit

    def change(self, pages: Pages, rows: Rows) -> None:
        write = self._workspace.write
        for page, row in zip(pages.tolist(), rows, strict=True):
            write(REGION, page * PAGE, row)


PEER = PagestoreWrites
