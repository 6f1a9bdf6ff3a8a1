"""Bodies of requests."""

import json

from starlette.exceptions import HTTPException
from starlette.requests import Request

from agentainer_runtime.inputs import InvalidInput

MAX_BODY_BYTES = 10 * 1024 * 1024


async def body_of(request: Request) -> object:
    """Return the body as JSON, whatever its type is called.

    Raises:
        InvalidInput: it is none.
        HTTPException: 413, it is too long.
    """
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > MAX_BODY_BYTES:
            raise HTTPException(413, f"a body has at most {MAX_BODY_BYTES} bytes")
        pieces.append(piece)
    try:
        return json.loads(b"".join(pieces) or b"null")
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the body is not JSON: {error}") from error
