"""What makes an installation a test build: first on PYTHONPATH, it arms the crash points of every process started so.

Python imports it before anything of the product. Without the variables, as in a process that inherited only the path,
nothing happens.
"""

import os
from pathlib import Path

from tests.chaos.crash.arming import ARMED_VARIABLE, Deaths
from tests.chaos.ledger import LEDGER_VARIABLE

from barnabas.runtime import crash_points

if ARMED_VARIABLE in os.environ:
    crash_points.arm(Deaths(Path(os.environ[ARMED_VARIABLE]), Path(os.environ[LEDGER_VARIABLE])))
