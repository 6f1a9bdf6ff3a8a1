"""What a container's first process has to do: pass on signals, and wait for processes whose parent has gone.

And what keeps tools from reading what they are not given: /proc shows a process's environment to others of its user, unless
it is marked as one that can't be dumped.
"""

import contextlib
import ctypes
import os
import resource
import signal

_PR_SET_DUMPABLE = 4
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_OPEN_FILES = 4096


def hide_environment() -> None:
    """Have /proc/self belong to root: no process of this user reads our environment and memory (prctl(2)).

    What is started from here closes files by trying them all, since it can't list them either: so there may not be many.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES if hard < 0 else min(_OPEN_FILES, hard), hard))


def supervise_child() -> int | None:
    """Fork: None in the child, which goes on; in the parent the child's exit code, once it has ended."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_PASSED_ON, signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {*_PASSED_ON, signal.SIGCHLD})
        return None
    while True:
        code = _reap(child)
        if code is not None:
            return code
        number = signal.sigwait({*_PASSED_ON, signal.SIGCHLD})
        if number != signal.SIGCHLD:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)


def _reap(child: int) -> int | None:
    """Wait for all that have ended; the child's exit code (as a shell tells it) if it is among them."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return 1
        if pid == 0:
            return None
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
