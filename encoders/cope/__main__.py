"""`python -m encoders.cope`."""

import sys

from encoders.cope.command import main

if __name__ == "__main__":
    sys.exit(main())
