"""`python -m dertwin.main -c FILE`: the same as the command `dertwin`."""

import sys

from bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
