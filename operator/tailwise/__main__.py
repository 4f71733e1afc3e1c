"""``python -m tailwise``: the same as the ``tailwise`` command."""

import sys

from tailwise.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
