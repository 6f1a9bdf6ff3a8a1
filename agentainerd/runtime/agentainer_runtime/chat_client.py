"""The model client: streaming chat completions over HTTP, tried again where that can help.

A failure that passes (no connection, 408, 429, 5xx, an answer that breaks off or falls silent) is tried up to 5 times, with
growing pauses or the one that the server asks for. What the server means is not tried again: a wrong key, a bad request.
"""

import asyncio
import json
import logging
import random
import re
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from agentainer_runtime.endpoints import Endpoint
from agentainer_runtime.provider import Again, ContextOverflow, ModelFailed, Piece, Request
from agentainer_runtime.stream_parser import MAX_ANSWER_BYTES, AnswerTooLong, BrokenAnswer, ErrorInStream, StreamParser

log = logging.getLogger(__name__)
MAX_ATTEMPTS = 5
_MAX_PAUSE_S = 20.0
_MAX_ASKED_PAUSE_S = 60.0
_MAX_ERROR_BYTES = 64 * 1024
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
_OVERFLOW = re.compile(
    r"context.{0,10}(length|window|limit|size)|too many (input )?tokens|(prompt|input|request) is too (long|large)"
    r"|maximum.{0,20}tokens|token limit|exceeds? the (model|maximum)",
    re.IGNORECASE,
)


class _Passing(Exception):
    """A failure that another attempt may not have; `pause_s` is what the server asked for."""

    def __init__(self, message: str, pause_s: float | None = None) -> None:
        super().__init__(message)
        self.pause_s = pause_s


class ChatClient:
    """Asks at one endpoint. Connections are the HTTP client's, which is whoever made it to close."""

    def __init__(self, http: httpx2.AsyncClient, endpoint: Endpoint, *, silence_s: float, pause_s: float = 0.5) -> None:
        """`silence_s`: after so long without a byte an answer counts as broken off; `pause_s`: before the second attempt."""
        self._http = http
        self._endpoint = endpoint
        self._timeout = httpx2.Timeout(silence_s, connect=min(10.0, silence_s))
        self._pause_s = pause_s

    async def answer(self, request: Request) -> AsyncGenerator[Piece, None]:
        """See Provider.answer."""
        attempt = 1
        while True:
            try:
                async with aclosing(self._attempt(request)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            except _Passing as error:
                if attempt == MAX_ATTEMPTS:
                    raise ModelFailed(f"{self._said(request, str(error))} (after {attempt} attempts)") from error
                log.info("model asked again: %s", error)
                attempt += 1
                yield Again(str(error), attempt)
                await asyncio.sleep(self._pause(attempt, error.pause_s))

    async def close(self) -> None:
        """See Provider.close."""

    async def _attempt(self, request: Request) -> AsyncGenerator[Piece, None]:
        try:
            async with aclosing(self._stream(request)) as pieces:
                async for piece in pieces:
                    yield piece
        except httpx2.TimeoutException as error:
            raise _Passing(f"the model was silent for too long ({type(error).__name__})") from error
        except (httpx2.TransportError, BrokenAnswer, ValueError) as error:
            raise _Passing(str(error) or type(error).__name__) from error
        except ErrorInStream as error:
            raise self._refusal(request, _status(error.error), {}, {"error": error.error}) from error
        except AnswerTooLong as error:
            raise ModelFailed(self._said(request, str(error))) from error

    async def _stream(self, request: Request) -> AsyncGenerator[Piece, None]:
        url, parser = f"{self._endpoint.base_url}/chat/completions", StreamParser()
        body, headers = self._body(request), self._headers(request)
        async with self._http.stream("POST", url, json=body, headers=headers, timeout=self._timeout) as response:
            if response.status_code != 200:
                raise self._refusal(request, response.status_code, response.headers, await _read(response))
            if response.headers.get("content-type", "").startswith("application/json"):
                for piece in parser.take(json.loads(await _whole(response))):
                    yield piece
            else:
                async for data in response.aiter_bytes():
                    for piece in parser.feed(data):
                        yield piece
        for piece in parser.end():
            yield piece

    def _body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": request.model,
            "messages": request.messages,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.tools:
            body["tools"] = request.tools
        if "//openrouter.ai/" in self._endpoint.base_url:
            body["usage"] = {"include": True}  # its own figure for the cost
        return body

    def _headers(self, request: Request) -> dict[str, str]:
        key = {"Authorization": f"Bearer {self._endpoint.key}"} if self._endpoint.key else {}
        return {"Accept": "text/event-stream", "Accept-Encoding": "identity", **key, **request.fields}

    def _refusal(self, request: Request, status: int, headers: Mapping[str, str], body: object) -> Exception:
        """Return what an answer that is an error means."""
        error = body.get("error") if isinstance(body, dict) else None
        error = error if isinstance(error, dict) else {"message": str(error or body)[:500]}
        message, kind, code = (str(error.get(name) or "") for name in ("message", "type", "code"))
        said = self._said(request, f"{status} {message}".strip())
        if status == 402:
            return ModelFailed(said, "cost_limit")
        if code == "context_length_exceeded" or (status in (400, 413, 422) and _OVERFLOW.search(message)):
            return ContextOverflow(said)
        if status in _PASSING and kind != "insufficient_quota" and code != "insufficient_quota":
            return _Passing(f"{status} {message}".strip(), _retry_after(headers))
        return ModelFailed(said)

    def _said(self, request: Request, message: str) -> str:
        text = message.replace(self._endpoint.key, "***") if self._endpoint.key else message
        return f"{request.model} at {httpx2.URL(self._endpoint.base_url).host}: {text}"

    def _pause(self, attempt: int, asked_s: float | None) -> float:
        if asked_s is not None:
            return min(asked_s, _MAX_ASKED_PAUSE_S)
        return float(min(self._pause_s * 2 ** (attempt - 2), _MAX_PAUSE_S) * random.uniform(0.75, 1.25))


async def _whole(response: httpx2.Response) -> bytes:
    """Return the body of an answer that is not streamed. Raises AnswerTooLong."""
    data = bytearray()
    async for piece in response.aiter_bytes():
        data += piece
        if len(data) > MAX_ANSWER_BYTES:
            raise AnswerTooLong(f"the answer has more than {MAX_ANSWER_BYTES} bytes")
    return bytes(data)


async def _read(response: httpx2.Response) -> object:
    """Return the body of an error: JSON where it is, else text; not more than fits a message."""
    data = b""
    async for piece in response.aiter_bytes():
        data += piece
        if len(data) > _MAX_ERROR_BYTES:
            break
    text = data.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except ValueError:
        return {"error": {"message": " ".join(re.sub(r"<[^>]*>", " ", text).split())[:300]}}


def _status(error: dict[str, Any]) -> int:
    """Return the status that an error in a stream would have had: servers put it into `code`, or nowhere."""
    for name in ("status", "code", "status_code"):
        value = error.get(name)
        if isinstance(value, int) and 400 <= value < 600:
            return value
        if isinstance(value, str) and re.fullmatch(r"[45]\d\d", value):
            return int(value)
    return 402 if error.get("code") == "budget_exceeded" else 500


def _retry_after(headers: Mapping[str, str]) -> float | None:
    text = headers.get("retry-after", "")
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
