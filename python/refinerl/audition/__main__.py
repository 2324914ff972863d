"""Run `python -m refinerl.audition`."""

import sys

from refinerl.errors import report_early_interruption

report_early_interruption()

from refinerl.audition.command import main

sys.exit(main())
