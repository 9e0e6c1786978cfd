"""`python -m encoders`."""

import sys

from encoders.cli import main

if __name__ == "__main__":
    sys.exit(main())
