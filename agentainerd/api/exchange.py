"""What handlers get and give: the request with its actor, its body and its query, and the three kinds of answers."""

import json
import logging
import re
import secrets
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Protocol, TypeVar

import msgspec
from werkzeug.wrappers import Request, Response

from agentainerd import defaults
from agentainerd.api.errors import error_fields
from agentainerd.errors import AgentainerError, InvalidParameter, TooLarge
from agentainerd.model.tokens import Scope
from agentainerd.services.audit import Actor
from agentainerd.units import parse_duration

log = logging.getLogger(__name__)

Body = TypeVar("Body", bound=msgspec.Struct)
NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
LEFT = "agentainer.left"
"""What control_server.py puts into the environment: returns whether the client closed its side."""
_EPOCH = re.compile(r"[0-9]{9,12}(?:\.[0-9]{1,9})?")
_REQUEST_ID = re.compile(r"[0-9A-Za-z._-]{1,64}")
_TRUE = ("", "1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")
_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """`timeout_s`: how long an answer may wait for what it was asked for, unless it says so itself; of streams nothing is cut.

    `max_body_bytes`: of a body of JSON.
    """

    timeout_s: float = defaults.API_REQUEST_TIMEOUT_S
    max_body_bytes: int = defaults.MAX_API_BODY_BYTES


class ApiRequest(Request):
    """A request behind one of the two doors; access.py fills in who asks.

    `actor`: who asks. `scope`: what the door or the token lets the caller do; None for nothing but what is public.
    `is_local`: it came through the control socket. `is_page`: a page of a browser sent it, and may. `limits`: from the
    configuration.
    """

    actor: Actor
    scope: Scope | None
    is_local: bool
    is_page: bool = False
    limits: ApiLimits = ApiLimits()

    @cached_property
    def id(self) -> str:
        """What the data plane numbered it, else a number of ours; the log, the audit log and the answer have it too."""
        given: str = self.headers.get("X-Agentainer-Request-ID", "")
        return given if _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())

    def has_body(self) -> bool:
        """Return whether the client sends a body with anything in it."""
        return bool(self.content_length) or "chunked" in self.headers.get("Transfer-Encoding", "").lower()

    def has_left(self) -> bool:
        """Return whether the client is gone, where that can be seen; its body must have been read."""
        look: Callable[[], bool] | None = self.environ.get(LEFT)
        return look is not None and look()

    def may(self, needed: Scope) -> bool:
        """Return whether the caller may do what needs this scope."""
        return self.scope is not None and self.scope.covers(needed)

    def read_json(self, kind: type[Body]) -> Body:
        """Return the body as a `kind`; an empty one counts as {}.

        Raises:
            InvalidParameter: not JSON (with the position), not of this shape (with the field), or of another media type.
            TooLarge: over `limits.max_body_bytes`.
        """
        body = self.read_body()
        if body and self.mimetype and self.mimetype != "application/json" and not self.mimetype.endswith("+json"):
            raise InvalidParameter(
                "Content-Type", f"{self.mimetype!r} is not application/json", code="UNSUPPORTED_MEDIA_TYPE"
            )
        try:
            return msgspec.json.decode(body or b"{}", type=kind)
        except msgspec.ValidationError as exc:
            raise _shape_error(exc, kind) from exc
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise InvalidParameter("body", _syntax_error(exc, len(body)), code="MALFORMED_JSON") from exc

    def read_body(self) -> bytes:
        """Return the body. Raises TooLarge: over `limits.max_body_bytes`; InvalidParameter: it broke off."""
        limit = self.limits.max_body_bytes
        pieces: list[bytes] = []
        size = self.content_length or 0
        if size <= limit:
            size = 0
            while size <= limit and (piece := self._read_piece()):
                pieces.append(piece)
                size += len(piece)
        if size > limit:
            raise TooLarge(
                f"the body is larger than {limit / 2**20:.6g} MiB",
                code="BODY_TOO_LARGE",
                hint="the bound is api.max_body_bytes",
            )
        return b"".join(pieces)

    def _read_piece(self) -> bytes:
        try:
            return self.stream.read(_PIECE_BYTES)
        except OSError as exc:
            raise InvalidParameter("body", f"broke off: {exc}", code="BODY_BROKEN_OFF") from exc


class Query:
    """The query of a request: every parameter is known, is there once (but for `many`), and has its type.

    Raises:
        InvalidParameter: anything else; from every method.
    """

    def __init__(self, request: ApiRequest, known: Iterable[str], *, many: Iterable[str] = ()) -> None:
        self._args = request.args
        allowed = {*known, *many}
        for name in self._args:
            if name not in allowed and name != "token":
                listed = ", ".join(sorted(allowed)) or "none"
                raise InvalidParameter(name, f"is not a parameter of this call; known: {listed}")
            if name not in many and len(self._args.getlist(name)) > 1:
                raise InvalidParameter(name, "is there twice")

    def text(self, name: str, default: str = "") -> str:
        """Return it as it is."""
        return self._args.get(name, default)

    def texts(self, name: str) -> list[str]:
        """Return all of them."""
        return self._args.getlist(name)

    def flag(self, name: str) -> bool:
        """Return a yes or no; there without a value means yes."""
        value = self._args.get(name, "false").lower()
        if value not in _TRUE + _FALSE:
            raise InvalidParameter(name, f"{value!r} is neither true nor false")
        return value in _TRUE

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """Return a whole number between `low` and `high`."""
        value = self._args.get(name)
        if value is None:
            return default
        if not value.isascii() or not value.isdigit() or not low <= int(value[:19]) <= high:
            raise InvalidParameter(name, f"{value[:64]!r} is not a whole number between {low} and {high}")
        return int(value)

    def seconds(self, name: str, high: float) -> float | None:
        """Return a duration ("30", "1m30s") of at most `high` seconds, or None where there is none."""
        value = self._args.get(name)
        if value is None:
            return None
        seconds = parse_duration(value[:64], name)
        if seconds > high:
            raise InvalidParameter(name, f"{value[:64]!r} is longer than {high:g} s")
        return seconds

    def moment(self, name: str) -> float:
        """Return epoch seconds for a time (epoch, RFC 3339) or for a duration ago; 0.0 where there is none."""
        text = self._args.get(name, "")
        if not text:
            return 0.0
        if _EPOCH.fullmatch(text):
            return float(text)
        if "T" in text:
            try:
                return datetime.fromisoformat(text[:40].replace(" ", "+")).timestamp()
            except ValueError:
                raise InvalidParameter(name, f"{text[:64]!r} is not a time (RFC 3339)") from None
        return time.time() - parse_duration(text[:64], name)

    def pairs(self, name: str) -> dict[str, str]:
        """Return "KEY=VALUE" parameters as a map."""
        found = {}
        for text in self._args.getlist(name):
            key, equals, value = text.partition("=")
            if not equals or not key:
                raise InvalidParameter(name, f"{text[:64]!r} is not KEY=VALUE")
            found[key] = value
        return found

    def limit(self, default: int = defaults.PAGE_LIMIT) -> int:
        """Return how long a page may be."""
        return self.integer("limit", default, 1, defaults.MAX_PAGE_LIMIT)


class Closable(Protocol):
    """What a stream is made of: something that holds resources."""

    def close(self) -> None:
        """Let them go."""


def answer(message: str, data: object = None, *, status: int = 200, **more: object) -> Response:
    """Return the envelope; `data` is left out where it is None, as `more` fields are."""
    envelope = {"success": True, "message": message}
    envelope.update({key: value for key, value in {"data": data, **more}.items() if value is not None})
    return Response(msgspec.json.encode(envelope) + b"\n", status, mimetype="application/json")


def answer_flat(body: object, *, status: int = 200) -> Response:
    """Return a body without the envelope, for routes of documents that have none."""
    return Response(msgspec.json.encode(body) + b"\n", status, mimetype="application/json")


def stream_lines(source: Closable, lines: Iterable[Mapping[str, object]]) -> Response:
    """Return a stream of JSON lines. An error in the middle is its last line; `source` is closed at the end, however it ends."""
    return Response(_Closing(source, _lines(lines)), mimetype=NDJSON, headers={"X-Accel-Buffering": "no"})


def stream_events(source: Closable, messages: Iterable[bytes]) -> Response:
    """Return server-sent events (HTML standard, 9.2.6), which are encoded already; an error in the middle breaks them off."""
    return Response(_Closing(source, messages), mimetype=SSE, headers={"X-Accel-Buffering": "no"})


def stream_bytes(source: Closable, pieces: Iterable[bytes]) -> Response:
    """Return a stream of plain text; an error in the middle breaks it off."""
    return Response(_Closing(source, pieces), mimetype="text/plain", headers={"X-Accel-Buffering": "no"})


def stream_file(source: Closable, pieces: Iterable[bytes], kind: str, headers: Mapping[str, str]) -> Response:
    """Return a stream of bytes of a media type, with more headers; an error in the middle breaks it off."""
    return Response(_Closing(source, pieces), mimetype=kind, headers={"X-Accel-Buffering": "no", **headers})


def log_bug(error: BaseException, request: str) -> str:
    """Log an error that nobody expected, with its traceback, and return the id that it can be found by."""
    ident = secrets.token_hex(4)
    log.error("internal error %s in %s", ident, request, exc_info=error)
    return ident


def internal_error(ident: str) -> AgentainerError:
    """Return what a caller is told of a bug: nothing but the id."""
    return AgentainerError(
        f"internal error {ident}", hint="the daemon's log has more: journalctl -u agentainerd", details={"id": ident}
    )


def _lines(lines: Iterable[Mapping[str, object]]) -> Iterator[bytes]:
    try:
        yield b"\n"  # sends the head: the first line may be a long time away
        for line in lines:
            yield json.dumps(line, separators=(",", ":")).encode() + b"\n"
    except AgentainerError as error:
        yield json.dumps({"error": error_fields(error)}).encode() + b"\n"
    except Exception as exc:
        bug = internal_error(log_bug(exc, "a stream"))
        yield json.dumps({"error": error_fields(bug)}).encode() + b"\n"


class _Closing:
    """Pieces whose source is closed with them; also where none is ever asked for, as by a HEAD: a generator would not know."""

    def __init__(self, source: Closable, pieces: Iterable[bytes]) -> None:
        self._source: Closable | None = source
        self._pieces = iter(pieces)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._pieces)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        source, self._source = self._source, None
        if source is None:
            return
        try:
            if isinstance(self._pieces, Generator):
                self._pieces.close()
        finally:
            source.close()


def _shape_error(error: msgspec.ValidationError, kind: type[msgspec.Struct]) -> InvalidParameter:
    """Turn "... - at `$.volumes[0].host_path`" into the field and the reason."""
    reason, _, path = str(error).partition(" - at `$")
    field = path.rstrip("`").lstrip(".") or "body"
    if reason.startswith("Object contains unknown field"):
        name = reason.split("`")[1]
        known = ", ".join(sorted(one.encode_name for one in msgspec.structs.fields(kind))) if field == "body" else ""
        where = name if field == "body" else f"{field}.{name}"
        return InvalidParameter(
            where, f"is not a field{f'; known: {known}' if known else ' here'}", code="UNKNOWN_FIELD"
        )
    if reason.startswith("Object missing required field"):
        name = reason.split("`")[1]
        return InvalidParameter(name if field == "body" else f"{field}.{name}", "is required")
    return InvalidParameter(field, reason[:1].lower() + reason[1:])


def _syntax_error(error: Exception, size: int) -> str:
    text = str(error)
    if "truncated" in text:
        return f"the JSON is cut off after byte {size}"
    if isinstance(error, RecursionError):
        return "the JSON is nested too deeply"
    return f"is not JSON: {text.removeprefix('JSON is malformed: ')}"
