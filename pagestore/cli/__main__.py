"""``python -m pagestore.cli`` is ``pagestore``."""

import sys

from pagestore.cli import main

if __name__ == "__main__":
    sys.exit(main())
