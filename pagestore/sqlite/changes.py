"""What differs between two versions of a database: tables, and rows of a table.

Owns: from the store's page diff, through SQLite's trees, to tables and rows. Reads interior pages,
and the leaves that differ; not the rest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import apsw

import pagestore
from pagestore.sqlite.btree import File, Tree, Value
from pagestore.sqlite.connection import connect

Ref = str | int | pagestore.Version


class TableChange(NamedTuple):
    """How many pages of a table, and of its indexes, have other bytes; overflow pages too."""

    table: str
    pages: int
    index_pages: int


class RowChange(NamedTuple):
    """One row that differs; `old` is None for one that came, `new` for one that went.

    In a table WITHOUT ROWID `rowid` is None, and a row with another key is another row.
    """

    rowid: int | None
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
        if not self.sides:
            raise pagestore.NotFoundError(f"none of the two versions has a database {name!r}")
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

    Raises
    ------
    NotFoundError
        There is no such version, or none of them has such a database.
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
    """Yield the rows of a table that differ between two versions, by rowid or primary key.

    Only rows on pages that differ are looked at.

    Raises
    ------
    InvalidError
        It is not a table, or has not the same primary key in both versions, or hides its rowids
        behind columns of all their names.
    NotFoundError
        None of the versions has such a table.
    """
    with contextlib.closing(_Comparison(store, a, b, name)) as both:
        sides = [side for side in both.sides if table in side.roots]
        if not sides:
            raise pagestore.NotFoundError(f"there is no table {table!r} with pages of its own")
        keys = {_key(side, table) for side in sides}
        if len(keys) > 1:
            raise pagestore.InvalidError(f"{table!r} has not the same key in both versions")
        [key] = keys
        seen = set()  # a row has several spellings of its key, if its collation says so
        identities = {i for side in sides for i in _identities(both, side, table, key)}
        for identity in sorted(identities, key=_order):
            old, new = (_row(side, table, key, identity) for side in (both.old, both.new))
            if _typed(old) != _typed(new) and (old, new) not in seen:
                seen.add((old, new))
                yield RowChange(cast("int | None", None if key else identity[0]), old, new)


def _key(side: _Side, table: str) -> tuple[str, ...]:
    """The primary key's columns as the table's tree has them; none if rows have rowids."""
    assert side.db is not None
    about = "SELECT type, wr FROM pragma_table_list WHERE schema = 'main' AND name = ?"
    for kind, without_rowid in side.db.execute(about, (table,)):
        if kind == "table":
            columns = (
                "SELECT c.name FROM pragma_index_list(?) i, pragma_index_xinfo(i.name) c"
                " WHERE i.origin = 'pk' AND c.\"key\" ORDER BY c.seqno"
            )
            return tuple(n for (n,) in side.db.execute(columns, (table,))) if without_rowid else ()
    raise pagestore.InvalidError(f"{table!r} is not a table of rows")


def _identities(
    both: _Comparison, side: _Side, table: str, key: tuple[str, ...]
) -> Iterator[tuple[Value, ...]]:
    """Rowids or keys of the rows on pages that differ."""
    assert side.file is not None
    tree, homes = side.trees[table], both.overflow(side, table)
    for page in (both.tree_pages(table) | homes.keys()) & (tree.leaves | tree.interior):
        for cell in side.file.cells(page):
            yield side.file.values(cell, len(key)) if key else (cell.rowid,)


def _row(
    side: _Side, table: str, key: tuple[str, ...], identity: tuple[Value, ...]
) -> tuple[Any, ...] | None:
    if side.db is None or table not in side.roots:
        return None
    where = " AND ".join(f"{_quoted(n)} = ?" for n in key) or f"{_rowid_name(side.db, table)} = ?"
    query = f"SELECT * FROM {_quoted(table)} WHERE {where}"
    return next(iter(side.db.execute(query, identity)), None)


def _rowid_name(db: apsw.Connection, table: str) -> str:
    columns = {row[1].lower() for row in db.execute(f"PRAGMA table_xinfo({_quoted(table)})")}
    for name in ("rowid", "_rowid_", "oid"):
        if name not in columns:
            return name
    raise pagestore.InvalidError(f"{table!r} hides its rowids behind columns")


def _order(values: tuple[Value, ...]) -> list[tuple[int, Any]]:
    """As SQLite orders them, in ascending order and without collations."""
    ranks = {type(None): 0, int: 1, float: 1, str: 2, bytes: 3}
    return [(ranks[type(v)], 0 if v is None else v) for v in values]


def _typed(row: tuple[Any, ...] | None) -> object:
    """With types: 1 and 1.0 are two values."""
    return row and [(type(value), value) for value in row]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
