"""Run `python -m refinerl.study`."""

import sys

from refinerl.study.command import main

sys.exit(main())
