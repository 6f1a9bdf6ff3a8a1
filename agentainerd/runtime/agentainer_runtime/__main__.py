"""The program: `agentainer-runtime`, or `python -m agentainer_runtime`. As the container's first process it is its init too."""

import asyncio
import logging
import os
import sys

from agentainer_runtime import init
from agentainer_runtime.settings import InvalidSetting, Settings

BAD_SETTING = 2
FAILED = 1


def main() -> int:
    """Run until a signal ends it, and return the exit code: 0 ended, 1 failed, 2 a variable has a value that it can't have."""
    init.hide_environment()
    code = init.supervise_child() if os.getpid() == 1 else None
    return _serve() if code is None else code


def _serve() -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("uvicorn", "httpx2"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        settings = Settings.from_environment(os.environ)
    except InvalidSetting as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_SETTING
    from agentainer_runtime.server import serve  # after the fork: the first process stays small

    try:
        asyncio.run(serve(settings))
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
