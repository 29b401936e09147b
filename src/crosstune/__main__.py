"""`python -m crosstune` is the console script `crosstune`."""

import sys

from crosstune.cli import main

sys.exit(main())
