"""Run `python -m refinerl.report`."""

import sys

from refinerl.report.command import main

sys.exit(main())
