"""The page: one HTML file with its style, its script and its data, and nothing from elsewhere.

Owns the way that data gets into HTML unharmed.

- P1  The page asks no network for anything: its content policy allows only the style and the
      script that are in it, by their hashes.
- P2  Data are JSON in ASCII without ``<``, ``>`` and ``&``: no text can end the element it is in.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib import resources
from typing import Any

_SCRIPTS = ("data.js", "view.js", "graph.js", "map.js", "tables.js", "charts.js", "main.js")
_HARMFUL = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&"})


def page(data: dict[str, Any]) -> bytes:
    """Return the page that shows some data (`collect`)."""
    style = _part("page.css")
    script = '"use strict";\n(() => {\n' + "\n".join(map(_part, _SCRIPTS)) + "})();\n"
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    values = {
        "POLICY": policy,
        "TITLE": html.escape(data["store"]["name"]),
        "STYLE": style,
        "SCRIPT": script,
        "DATA": json.dumps(data, separators=(",", ":")).translate(_HARMFUL),
    }
    return re.sub("%([A-Z]+)%", lambda what: values[what[1]], _part("page.html")).encode()


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
