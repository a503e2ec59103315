"""CopyOnWriteList: a growing list of numbers with any number of frozen snapshots at once."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, SupportsIndex, overload

import numpy as np

from pagestore.errors import InvalidError
from pagestore.store import Store
from pagestore.view import SnapshotView

ITERATED = 4096  # items turned into Python objects at a time


class FrozenList(Sequence[Any]):
    """The items that a list had when it was snapshot; they never change."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array

    def _items(self) -> np.ndarray[Any, Any]:
        return self._array

    def __len__(self) -> int:
        return len(self._items())

    @overload
    def __getitem__(self, index: SupportsIndex) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        """Return one item, or a slice as a plain list."""
        if isinstance(index, slice):
            return self._items()[index].tolist()
        return self._items()[self._position(index)].item()

    def _position(self, index: SupportsIndex) -> int:
        at, size = operator.index(index), len(self)
        if not -size <= at < size:
            raise IndexError(f"index {at} of a list of {size} items")
        return at % size

    def __iter__(self) -> Iterator[Any]:
        at = 0
        while at < len(self):
            part = self._items()[at : at + ITERATED].tolist()
            yield from part
            at += len(part)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self._items(), dtype=dtype, copy=True)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FrozenList | list | tuple):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:6])) + (", ..." if len(self) > 6 else "")
        return f"<{type(self).__name__} of {len(self)}: [{shown}]>"


class CopyOnWriteList(FrozenList):
    """A list of numbers kept in a region of a store's branch ``main``.

    Changes are durable from the next `snapshot` or `commit` on; leaving it as a context manager
    commits. A snapshot shares every page that did not change since.

    Parameters
    ----------
    store : Store
    name : str
        The region; it is created if it is missing.
    dtype : dtype-like
        Of the items.

    Raises
    ------
    InvalidError
        The region exists and is not a list of that dtype.
    """

    def __init__(self, store: Store, name: str, dtype: Any = "i8") -> None:
        self._store = store
        self._name = name
        self._space = store.begin()
        try:
            if name in self._space:
                self._buffer = self._space[name]
                if self._buffer.ndim != 1 or self._buffer.dtype != np.dtype(dtype):
                    found = self._space.regions[name]
                    raise InvalidError(
                        f"region {name!r} is an array {found.shape} of {found.dtype}, not a list "
                        f"of {np.dtype(dtype)}"
                    )
            else:
                self._buffer = self._space.create(name, 0, dtype)
        except BaseException:
            self._space.close()
            raise
        self._size = len(self._buffer)

    def _items(self) -> np.ndarray[Any, Any]:
        return self._buffer[: self._size]

    def append(self, item: Any) -> None:
        """Add one item at the end."""
        self._make_room(self._size + 1)
        self._buffer[self._size] = item
        self._size += 1

    def extend(self, items: Iterable[Any]) -> None:
        """Add items at the end; an array is copied at memory's speed. All of them or none."""
        if not isinstance(items, np.ndarray):
            items = np.array(list(items), self._buffer.dtype)
        new = self._size + len(items)
        self._make_room(new)
        self._buffer[self._size : new] = items
        self._size = new

    @overload
    def __setitem__(self, index: SupportsIndex, value: Any) -> None: ...
    @overload
    def __setitem__(self, index: slice, value: Iterable[Any]) -> None: ...
    def __setitem__(self, index: SupportsIndex | slice, value: Any) -> None:
        """Replace one item, or a slice by as many items."""
        if isinstance(index, slice):
            value = np.array(list(value), self._buffer.dtype)
            if len(value) != len(range(*index.indices(self._size))):
                raise InvalidError("a slice can only be replaced by as many items as it has")
            self._items()[index] = value
        else:
            self._buffer[self._position(index)] = value

    def _make_room(self, size: int) -> None:
        if size > len(self._buffer):
            self._resize(max(size, 2 * len(self._buffer), 512))

    def _resize(self, size: int) -> None:
        # an old array would keep the region from moving should it outgrow its addresses
        self._buffer = np.empty(0, self._buffer.dtype)
        self._buffer = self._space.resize(self._name, size)

    def commit(self, message: str = "") -> None:
        """Make the list durable as it is."""
        if self._size != len(self._buffer):
            self._resize(self._size)
        self._space.commit(message)

    def snapshot(self, name: str | None = None) -> FrozenList:
        """Commit, and return the items as they are now: frozen, in O(changed pages).

        Without a name the version is kept for as long as the frozen list is.
        """
        if self._size != len(self._buffer):
            self._resize(self._size)
        version = self._space.commit() if name is None else self._space.snapshot(name)
        view: SnapshotView = self._store.view(version)
        array = view[self._name]
        array.flags.writeable = False
        view.close()
        return FrozenList(array)

    def close(self) -> None:
        """Let go of the list; what was not committed is lost."""
        self._space.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.commit()
        finally:
            self.close()
