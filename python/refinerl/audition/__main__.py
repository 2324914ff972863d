"""Run `python -m refinerl.audition`."""

import sys

from refinerl.audition.command import main

sys.exit(main())
