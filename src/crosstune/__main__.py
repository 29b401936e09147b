"""`python -m crosstune` is the console script `crosstune`."""

import sys

if (
    __name__ == "__main__" and not sys.flags.safe_path
):  # a random.py in the working folder must not hide Python's
    sys.path.append(sys.path.pop(0))

from crosstune.cli.main import main

if __name__ == "__main__":  # processes of a pool import this file, too
    sys.exit(main())
