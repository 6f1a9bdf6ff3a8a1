"""What a program that a tool ran is told as: the notice first, for what stands in the middle is missed."""

import shlex
import time
from typing import Any

from agentainer_runtime import processes
from agentainer_runtime.tool import ToolContext

RESERVE_S = 5.0  # of the call's time: for ending what does not end
DEFAULT_TIMEOUT_S = 30
MAX_TIMEOUT_S = 3600
TIMEOUT = {
    "type": "integer",
    "minimum": 1,
    "maximum": MAX_TIMEOUT_S,
    "default": DEFAULT_TIMEOUT_S,
    "description": "after how many seconds it is ended",
}


async def run(
    argv: tuple[str, ...],
    context: ToolContext,
    *,
    timeout_s: int,
    label: str,
    folder: str = ".",
    environment: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Run a program in `folder` of the workspace and return what the model is told. The call's own deadline comes first."""
    room = max(1.0, context.deadline_s - time.monotonic() - RESERVE_S)
    limit = min(float(timeout_s), room)
    try:
        outcome = await processes.run(
            argv,
            folder=context.workspace / folder,
            environment={**context.environment, **(environment or {})},
            outputs=context.outputs,
            until=time.monotonic() + limit,
            label=label,
        )
    except FileNotFoundError:
        return {"error": f"{shlex.quote(argv[0])} is not installed in this image"}
    except PermissionError:
        return {"error": f"{shlex.quote(argv[0])} is no program that may be run"}
    notice = " ".join(f"{text}." for text in _notices(outcome, context, limit))
    return {
        **({"notice": notice} if notice else {}),
        "success": outcome.exit_code == 0 and not outcome.ended,
        "exitCode": outcome.exit_code,
        "stdout": outcome.stdout.text,
        "stderr": outcome.stderr.text,
        **({"timedOut": True} if outcome.ended == "timeout" else {}),
    }


def _notices(outcome: processes.Outcome, context: ToolContext, limit: float) -> list[str]:
    texts = []
    if outcome.ended == "timeout":
        texts.append(f"Ended after {limit:g} s, for it had not finished; what it printed until then is here")
    if outcome.ended == "output":
        texts.append(f"Ended because it printed more than {processes.MAX_PRINTED_BYTES} bytes")
    if outcome.left_behind and not outcome.ended:
        texts.append(
            f"{outcome.left_behind} of its processes were still running and were ended: they do not outlive the call"
        )
    texts += [outcome.stdout.notice("stdout", context.workspace), outcome.stderr.notice("stderr", context.workspace)]
    return [text for text in texts if text]
