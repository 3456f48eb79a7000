"""`python -m babelscope`."""

import sys

from babelscope.cli import main

sys.exit(main())
