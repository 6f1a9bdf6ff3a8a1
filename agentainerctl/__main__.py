"""`python -m agentainerctl`."""

import sys

from agentainerctl.cli import main

if __name__ == "__main__":
    sys.exit(main())
