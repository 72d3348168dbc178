"""`python -m cutaway.cli`: the shell, where the script is not on the path."""

import sys

from cutaway.cli import main

sys.exit(main())
