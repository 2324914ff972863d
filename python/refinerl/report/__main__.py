"""Run `python -m refinerl.report`."""

import sys

from refinerl.errors import report_early_interruption

report_early_interruption()

from refinerl.report.command import main

sys.exit(main())
