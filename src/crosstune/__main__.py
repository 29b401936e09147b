"""`python -m crosstune` is the console script `crosstune`."""

import sys

from crosstune.cli.main import main

if __name__ == "__main__":  # processes of a pool import this file
    sys.exit(main())
