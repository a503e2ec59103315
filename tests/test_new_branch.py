"""A branch that begins with its first commit."""

import pytest

import pagestore
from pagestore import ExistsError, InvalidError, NotFoundError

PAGE = 4096


@pytest.fixture
def store(make_store):
    store = make_store()
    with store.begin() as ws:
        ws.create("x", 4 * PAGE)[:] = 1
    store.snapshot("one")
    with store.begin() as ws:
        ws["x"][:] = 2
    return store


def shown(store, ref):
    with store.view(ref) as view:
        return view["x"][::PAGE].tolist()


def test_it_comes_into_being_with_the_first_commit(store):
    ws = store.begin("side", at="one")
    ws["x"][0] = 7
    assert "side" not in store.branches
    version = ws.commit()
    assert store.branches["side"].id == version.id
    assert version.parent == store.version("one").id
    assert version.names == ("side",)
    ws.write("x", PAGE, b"\x08")
    ws.commit()  # it is like any other from now on
    assert shown(store, "side") == [7, 8, 1, 1]
    assert shown(store, "main") == [2, 2, 2, 2]
    assert ws.current
    ws.close()


def test_it_costs_one_transaction(store):
    before = store._engine.catalog.last
    with store.begin("side", at="one") as ws:
        ws.write("x", 0, b"\x07")
    assert store._engine.catalog.last == before + 1


def test_a_commit_without_changes_makes_it_too(store):
    with store.begin("side", at="one") as ws:
        assert ws.commit().id == store.version("one").id
        assert ws.snapshot("again").id == ws.version.id
    assert store.branches["side"].id == store.version("one").id
    with store.begin("other", at="one") as ws:
        ws["x"][0] = 1  # as it was
        assert "third" in ws.snapshot("third").names
    assert store.version("other").id == store.version("third").id == store.version("one").id


def test_without_a_commit_there_is_none(store):
    ws = store.begin("side", at="one")
    ws["x"][0] = 7
    ws.rollback()
    ws.close()
    with pytest.raises(RuntimeError), store.begin("side", at="one"):
        raise RuntimeError
    assert list(store.branches) == ["main"]


def test_until_then_it_is_current(store):
    with store.begin("side", at="one") as ws:
        assert ws.current
        assert not ws.refresh()
        with store.begin() as main:
            main["x"][1] = 5
        assert ws.current
        assert not ws.refresh()
        ws["x"][2 * PAGE] = 9
    assert shown(store, "side") == [1, 1, 9, 1]


def test_a_version_that_nothing_else_keeps(store):
    """It is pinned until the commit, and then takes its place in the line."""
    with store.begin("short", at="one") as ws:
        ws["x"][PAGE] = 5
    version = store.version("short")
    ws = store.begin("side", at=version)
    store.delete_branch("short")
    ws["x"][0] = 7
    ws.commit()
    ws.close()
    assert shown(store, "side") == [7, 5, 1, 1]
    with pytest.raises(NotFoundError):
        store.version(version.id)


def test_a_name_that_is_taken(store):
    for name in ("main", "one"):
        with pytest.raises(ExistsError):
            store.begin(name, at="one")
    ws = store.begin("side", at="one")
    ws["x"][0] = 7
    store.create_branch("side", at="main")
    with pytest.raises(ExistsError):
        ws.commit()
    store.delete_branch("side")
    ws.commit()  # it still holds its changes
    assert shown(store, "side") == [7, 1, 1, 1]
    ws.close()


def test_a_snapshot_cannot_have_its_name(store):
    with store.begin("side", at="one") as ws:
        ws["x"][0] = 7
        with pytest.raises(ExistsError):
            ws.snapshot("side")
    assert shown(store, "side") == [7, 1, 1, 1]
    assert list(store.check()) == []


def test_what_cannot_be(store):
    with pytest.raises(NotFoundError):
        store.begin("side", at="nothing")
    with pytest.raises(NotFoundError):
        store.begin("side", at=99)
    for name in ("", " x", "a~b", 5):
        with pytest.raises(InvalidError):
            store.begin(name, at="one")


def test_not_by_a_reader(store):
    with (
        pagestore.open(store.path, "r") as reader,
        pytest.raises(pagestore.ReadOnlyError),
    ):
        reader.begin("side", at="one")
