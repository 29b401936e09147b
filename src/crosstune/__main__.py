"""`python -m crosstune` is the console script `crosstune`."""

import sys

from crosstune.cli.main import main

if __name__ == "__main__":  # a pool's processes import it
    sys.exit(main())
