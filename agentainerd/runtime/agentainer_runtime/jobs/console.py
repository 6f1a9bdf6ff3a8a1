"""What a job says on the container's own streams, where `docker logs` and the logs of the job have it."""

import sys
from typing import TextIO

MAX_PROMPT_CHARS = 2000


def starting(job_id: str, prompt: str) -> None:
    """Say what begins, on one line."""
    line = "".join(sign if sign.isprintable() else " " for sign in prompt[:MAX_PROMPT_CHARS])
    more = f" [... {len(prompt) - MAX_PROMPT_CHARS} characters more]" if len(prompt) > MAX_PROMPT_CHARS else ""
    printed(f"Starting agent for job {job_id} with prompt: {line}{more}")


def printed(text: str) -> None:
    """Pass on what an action printed."""
    _write(sys.stdout, text)


def complained(text: str) -> None:
    """Pass on what an action wrote on its standard error, or say what went wrong."""
    _write(sys.stderr, text)


def _write(stream: TextIO, text: str) -> None:
    if text:
        stream.flush()
        stream.buffer.write(text.encode("utf-8", "replace") + (b"" if text.endswith("\n") else b"\n"))
        stream.buffer.flush()
