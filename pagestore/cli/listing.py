"""The names of a store, as `snapshot` and `branch` list them."""

from collections.abc import Mapping

import pagestore
from pagestore.cli.output import table


def list_names(names: Mapping[str, pagestore.Version]) -> None:
    """Print each name with its version."""
    table(
        {"name": "cyan", "version": "yellow", "time": "", "message": ""},
        (
            (name, version.id, version.time, version.message)
            for name, version in sorted(names.items())
        ),
    )
