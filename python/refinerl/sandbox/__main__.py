"""Run `python -m refinerl.sandbox`."""

import sys

from refinerl.sandbox.command import main

sys.exit(main())
