"""``python -m userlens_instrument``: the same as ``userlens-instrument``."""

import sys

from userlens_instrument.cli import main


if __name__ == "__main__":
    sys.exit(main())
