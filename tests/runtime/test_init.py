"""The container's first process; what it hides is seen in tests/runtime/test_image.py."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

RUNTIME = Path(__file__).parents[2] / "agentainerd/runtime"
PROGRAM = """
import ctypes, os, signal, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: as number 1 of a container is
sys.path.insert(0, {path!r})
from agentainer_runtime import init
code = init.supervise_child()
if code is not None:
    sys.exit(code)
{child}
"""


def run(child, *, send=None):
    program = PROGRAM.format(path=str(RUNTIME), child=child)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    if send is not None:
        process.stdout.readline()
        process.send_signal(send)
    output = process.communicate(timeout=10)[0]
    return process.returncode, output


@pytest.mark.parametrize(("child", "code"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", 137), ("", 0)])
def test_its_exit_code_is_that_of_the_program(child, code):
    assert run(child)[0] == code


def test_signals_are_passed_on():
    child = "signal.signal(signal.SIGTERM, lambda *_: (print('term', flush=True), sys.exit(3)))\nprint('up', flush=True)\ntime.sleep(30)"

    assert run(child, send=signal.SIGTERM) == (3, "term\n")


def test_what_lost_its_parent_is_waited_for(tmp_path):
    child = f"""
import subprocess
subprocess.run(["sh", "-c", "sleep 0.05 & echo $! > {tmp_path}/pid"])
pid, end = int(open("{tmp_path}/pid").read()), time.monotonic() + 5
while os.path.exists(f"/proc/{{pid}}") and time.monotonic() < end:
    time.sleep(0.01)
sys.exit(os.path.exists(f"/proc/{{pid}}"))
"""

    assert run(child)[0] == 0
