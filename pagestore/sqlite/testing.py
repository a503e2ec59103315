"""A database prepared once, and a private branch of it for each test.

A pytest plugin: ``pytest_plugins = ["pagestore.sqlite.testing"]``. Who wants another database than
an empty one overrides the fixture ``prepare_database``.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import apsw
import pytest

import pagestore
from pagestore.sqlite import dbapi
from pagestore.sqlite.connection import connect, uri

SNAPSHOT = "prepared"
NAME = "main.db"


class Prepared:
    """A prepared database in a store.

    Parameters
    ----------
    store : Store
    prepare : callable
        Called once with a connection; what it commits is what each test begins with.
    """

    def __init__(
        self, store: pagestore.Store, prepare: Callable[[apsw.Connection], object]
    ) -> None:
        self.store = store
        self._numbers = itertools.count()
        connection = connect(store, NAME)
        prepare(connection)
        connection.close()
        store.snapshot(SNAPSHOT)

    def branch(self) -> Database:
        """A new branch of the database."""
        name = f"test-{next(self._numbers)}"
        self.store.create_branch(name, at=SNAPSHOT)
        return Database(self.store, name)


class Database:
    """The database of one test, on a branch of its own; changes stay there.

    Attributes
    ----------
    uri : str
        What SQLite opens it by, in this process or another.
    """

    def __init__(self, store: pagestore.Store, branch: str) -> None:
        self._store = store
        self._branch = branch
        self._connections: list[apsw.Connection] = []
        self.uri = uri(store, NAME, branch)

    def connect(self, **apsw_args: Any) -> apsw.Connection:
        """Open the database; closed with the test."""
        self._connections.append(connect(self._store, NAME, self._branch, **apsw_args))
        return self._connections[-1]

    def dbapi(self) -> dbapi.Connection:
        """Open the database as Python's database API has it; closed with the test."""
        return dbapi.Connection(self.connect())

    def sqlite3(self) -> sqlite3.Connection:
        """A copy in memory for Python's own `sqlite3`, which cannot open stores.

        Costs a copy of the database; no other connection sees what is changed in it.
        """
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        with self._store.view(self._branch) as view:
            if NAME in view:
                connection.deserialize(view.peek(NAME).data)
        return connection

    def close(self) -> None:
        """Forget the branch and all that was changed in it."""
        for connection in self._connections:
            connection.close(force=True)
        self._store.delete_branch(self._branch)


@pytest.fixture(scope="session")
def prepare_database() -> Callable[[apsw.Connection], object]:
    """Override this with a function that makes the schema and the data that tests begin with."""
    return lambda connection: None


@pytest.fixture(scope="session")
def prepared_database(
    tmp_path_factory: pytest.TempPathFactory,
    prepare_database: Callable[[apsw.Connection], object],
) -> Iterator[Prepared]:
    """The database that tests get branches of."""
    with pagestore.open(tmp_path_factory.mktemp("pagestore") / "tests.ps") as store:
        yield Prepared(store, prepare_database)


@pytest.fixture
def database(prepared_database: Prepared) -> Iterator[Database]:
    """A private branch of the prepared database, thrown away after the test."""
    branch = prepared_database.branch()
    yield branch
    branch.close()
