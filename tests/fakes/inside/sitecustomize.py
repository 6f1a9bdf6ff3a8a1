"""Imported by every daemon that a test starts.

SIGUSR2 writes the stack of each greenlet to the file TEST_GREENLETS_FILE; SIGVTALRM never returns, as a loop of a defect does not.
"""

import os
import signal
import sys


def _dump(*_: object) -> None:
    from gevent.util import format_run_info

    with open(os.environ["TEST_GREENLETS_FILE"] + ".tmp", "w") as out:
        out.write("\n".join(format_run_info()))
    os.rename(out.name, os.environ["TEST_GREENLETS_FILE"])


def _spin_for_ever(*_: object) -> None:
    while True:
        pass


if "TEST_GREENLETS_FILE" in os.environ and "agentainerd" in sys.orig_argv:
    signal.signal(signal.SIGUSR2, _dump)
    signal.signal(signal.SIGVTALRM, _spin_for_ever)
