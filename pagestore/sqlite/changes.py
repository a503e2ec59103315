"""What differs between two versions of a database: tables, and rows of a table.

Owns: from the store's page diff, through SQLite's trees, to tables and rows. Reads interior pages,
and the leaves that differ; not the rest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import apsw

import pagestore
from pagestore.sqlite.btree import File, Tree
from pagestore.sqlite.connection import connect

Ref = str | int | pagestore.Version


class TableChange(NamedTuple):
    """How many pages of a table, and of its indexes, have other bytes; overflow pages too."""

    table: str
    pages: int
    index_pages: int


class RowChange(NamedTuple):
    """One row that differs; `old` is None for one that came, `new` for one that went."""

    rowid: int
    old: tuple[Any, ...] | None
    new: tuple[Any, ...] | None


class _Side:
    """A database at one version."""

    def __init__(self, store: pagestore.Store, ref: Ref, name: str) -> None:
        self.db: apsw.Connection | None = None
        self.file: File | None = None
        self.roots: dict[str, tuple[str, int]] = {}  # table or index: its table, its root
        self.trees: dict[str, Tree] = {}
        self.loose: bool | None = None  # overflow pages differ whose leaves do not; if known
        view = store.view(ref)
        if name in view and view.regions[name].nbytes:
            self.file = File(view.peek(name).data)
            self.db = connect(store, name, at=view.version)
            rows = self.db.execute("SELECT name, tbl_name, rootpage FROM sqlite_schema")
            self.roots = {n: (table, root) for n, table, root in rows if root}
            self.roots["sqlite_schema"] = ("sqlite_schema", 1)
            self.trees = {n: self.file.tree(root) for n, (_, root) in self.roots.items()}
        view.close()

    def close(self) -> None:
        if self.db is not None:
            self.db.close()


class _Comparison:
    """Two versions of a database, and which of its pages differ."""

    def __init__(self, store: pagestore.Store, a: Ref, b: Ref, name: str) -> None:
        first, second = store.version(a), store.version(b)
        self.old, self.new = _Side(store, first, name), _Side(store, second, name)
        sizes = {s.file.page_size for s in (self.old, self.new) if s.file is not None}
        if len(sizes) > 1:
            raise pagestore.InvalidError(f"the pages of {name!r} have two sizes")
        changes = [c for c in store.diff(first, second) if c.region == name]
        self.changed = set(self._pages(changes, store.page_size, sizes))

    def _pages(self, changes: list[pagestore.Change], unit: int, sizes: set[int]) -> Iterator[int]:
        """Pages of SQLite that differ; those of the store may be larger."""
        for change in changes:
            for size in sizes:
                for page in range(change.start * unit // size, -(-change.stop * unit // size)):
                    if _page(self.old.file, page + 1) != _page(self.new.file, page + 1):
                        yield page + 1

    @property
    def sides(self) -> list[_Side]:
        return [side for side in (self.old, self.new) if side.file is not None]

    def tree_pages(self, name: str) -> set[int]:
        """Pages of a table or index that differ, or are in one of the versions only."""
        trees = [s.trees.get(name, Tree(set(), set())) for s in (self.old, self.new)]
        old, new = (tree.interior | tree.leaves for tree in trees)
        return (old ^ new) | ((old | new) & self.changed)

    def overflow(self, side: _Side, name: str) -> dict[int, set[int]]:
        """By page of a tree with contents: the pages of its overflow chains that differ."""
        tree, file = side.trees.get(name), side.file
        if tree is None or file is None:
            return {}
        seen: dict[int, set[int]] = {}
        for page in tree.interior | tree.leaves if self._loose(side) else self.tree_pages(name):
            if page in tree.interior or page in tree.leaves:
                pages = {p for c in file.cells(page) for p in file.chain(c.overflow)}
                if found := pages & self.changed:
                    seen[page] = found
        return seen

    def _loose(self, side: _Side) -> bool:
        """Whether overflow pages may differ whose leaves do not: then all leaves are read."""
        if side.loose is None and side.file is not None:
            file, known = side.file, set[int]()
            for name, tree in side.trees.items():
                known |= tree.interior | tree.leaves
                for page in self.tree_pages(name) & (tree.interior | tree.leaves):
                    known |= {p for c in file.cells(page) for p in file.chain(c.overflow)}
            side.loose = any(p <= file.pages for p in self.changed - known)
        return bool(side.loose)

    def close(self) -> None:
        self.old.close()
        self.new.close()


def _page(file: File | None, number: int) -> bytes | None:
    return bytes(file.page(number)) if file is not None and number <= file.pages else None


def changed_tables(
    store: pagestore.Store, a: Ref, b: Ref, name: str = "main.db"
) -> list[TableChange]:
    """Return which tables of a database differ between two versions, by pages.

    Costs what differs, and the interior pages of the database, a hundredth or so of it. A table
    can have pages that differ and the same rows.

    Parameters
    ----------
    store : Store
    a, b : ref
    name : str
        The database.
    """
    with contextlib.closing(_Comparison(store, a, b, name)) as both:
        found: dict[str, list[int]] = {}
        for part in sorted({n for side in both.sides for n in side.roots}):
            pages = both.tree_pages(part) & both.changed
            for side in both.sides:
                pages = pages.union(*both.overflow(side, part).values())
            table = next(side.roots[part][0] for side in both.sides if part in side.roots)
            if pages:
                found.setdefault(table, [0, 0])[part != table] += len(pages)
        return [TableChange(table, *counts) for table, counts in sorted(found.items())]


def changed_rows(
    store: pagestore.Store, a: Ref, b: Ref, table: str, name: str = "main.db"
) -> Iterator[RowChange]:
    """Yield the rows of a table that differ between two versions, by rowid.

    Only rows on pages that differ are looked at.

    Raises
    ------
    InvalidError
        It is not a table, or one WITHOUT ROWID.
    NotFoundError
        None of the versions has such a table.
    """
    with contextlib.closing(_Comparison(store, a, b, name)) as both:
        if not any(table in side.roots for side in both.sides):
            raise pagestore.NotFoundError(f"there is no table {table!r} with pages of its own")
        rowids = {r for side in both.sides for r in _rowids(both, side, table)}
        for rowid in sorted(rowids):
            old, new = (_row(side, table, rowid) for side in (both.old, both.new))
            if old != new:
                yield RowChange(rowid, old, new)


def _rowids(both: _Comparison, side: _Side, table: str) -> Iterator[int]:
    """Rows of a table on pages that differ."""
    if table not in side.roots or side.file is None or side.db is None:
        return
    [(kind,)] = side.db.execute(
        "SELECT CASE WHEN type = 'table' THEN wr ELSE 2 END FROM pragma_table_list"
        " WHERE schema = 'main' AND name = ?",
        (table,),
    ).fetchall() or [(2,)]
    if kind:
        raise pagestore.InvalidError(f"{table!r} is not a table of rows with rowids")
    leaves = side.trees[table].leaves
    homes = both.overflow(side, table)
    for page in (both.tree_pages(table) | homes.keys()) & leaves:
        for cell in side.file.cells(page):
            yield cell.rowid


def _row(side: _Side, table: str, rowid: int) -> tuple[Any, ...] | None:
    if side.db is None or table not in side.roots:
        return None
    columns = {row[1].lower() for row in side.db.execute(f"PRAGMA table_xinfo({_quoted(table)})")}
    key = next(n for n in ("rowid", "_rowid_", "oid") if n not in columns or n == "oid")
    query = f"SELECT * FROM {_quoted(table)} WHERE {key} = ?"
    return next(iter(side.db.execute(query, (rowid,))), None)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
