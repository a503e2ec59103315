"""The benchmark measures what it says: every peer at hand does the whole work, at small size."""

from __future__ import annotations

import pytest

from tools.bench.conform import conform
from tools.bench.peers import Lacks, find, names


@pytest.mark.parametrize("name", names())
def test_peer_keeps_the_protocol(name, tmp_path):
    try:
        peer = find(name)
    except Lacks as e:
        pytest.skip(str(e))
    conform(peer, tmp_path)
