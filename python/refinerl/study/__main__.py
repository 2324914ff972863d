"""Run `python -m refinerl.study`."""

import sys

from refinerl.errors import report_early_interruption

report_early_interruption()

from refinerl.study.command import main

sys.exit(main())
