"""The command line: `pagestore put`, `get`, `log`, `diff` and the others, one file each.

Owns what a person sees. Knows the library only through its public face,
``import pagestore``. click and rich are optional (the extra ``cli``), so nothing here
imports them before `main` has looked whether they are there.
"""

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command line on ``sys.argv`` and return the exit status."""
    try:
        from pagestore.cli.group import run
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("click", "rich"):
            raise
        print(
            f"fatal: the command line needs {missing}: pip install 'pagestore[cli]'",
            file=sys.stderr,
        )
        return 128
    return run()
