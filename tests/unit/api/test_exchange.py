"""What handlers get and give."""

import io
import json
import time

import msgspec
import pytest
from werkzeug.test import EnvironBuilder, create_environ

from agentainerd import defaults
from agentainerd.api.exchange import ApiRequest, Query, answer, log_bug, stream_bytes, stream_events, stream_lines
from agentainerd.errors import InvalidParameter, TooLarge, Unavailable


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    count: int = 0


def asked(path="/", data=b"", **options) -> ApiRequest:
    return ApiRequest(EnvironBuilder(path=path, method="POST", data=data, **options).get_environ())


def refusal(function, *arguments, **options):
    with pytest.raises(InvalidParameter) as failure:
        function(*arguments, **options)
    return failure.value


@pytest.mark.parametrize(
    "media", ["application/json", "application/json; charset=utf-8", "application/problem+json", ""]
)
def test_a_json_body_is_read_as_its_kind(media):
    assert asked(data=b'{"name": "web"}', content_type=media).read_json(Body) == Body("web")


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"", "", "is required"),
        (b'{"name": "web", "nmae": 1}', "UNKNOWN_FIELD", "known: count, name"),
        (b'{"name": 7}', "", "name: expected `str`, got `int`"),
        (b'{"name": "web"', "MALFORMED_JSON", "is cut off after byte 14"),
        (b"{nope}", "MALFORMED_JSON", "is not JSON"),
        (b"\xff", "MALFORMED_JSON", "is not JSON"),
    ],
)
def test_a_body_that_is_wrong_says_where_and_how(data, code, words):
    error = refusal(asked(data=data, content_type="application/json").read_json, Body)

    assert words in error.message
    assert not code or error.code == code


def test_another_media_type_is_told():
    error = refusal(asked(data=b"a=1", content_type="application/x-www-form-urlencoded").read_json, Body)

    assert error.code == "UNSUPPORTED_MEDIA_TYPE"


def test_a_body_that_is_announced_too_large_is_not_read():
    class Unread(io.RawIOBase):
        def read(self, size=-1):
            raise AssertionError("it was read")

    environ = EnvironBuilder(method="POST").get_environ()
    environ |= {"wsgi.input": Unread(), "CONTENT_LENGTH": str(defaults.MAX_API_BODY_BYTES + 1)}

    with pytest.raises(TooLarge):
        ApiRequest(environ).read_json(Body)


def test_a_body_that_grows_too_large_is_stopped():
    environ = EnvironBuilder(method="POST").get_environ()
    source = io.BytesIO(b"x" * (defaults.MAX_API_BODY_BYTES + 200_000))
    environ |= {"wsgi.input": source, "wsgi.input_terminated": True}
    environ.pop("CONTENT_LENGTH", None)

    with pytest.raises(TooLarge):
        ApiRequest(environ).read_json(Body)
    assert source.tell() < defaults.MAX_API_BODY_BYTES + 100_000


def test_a_body_that_breaks_off_is_told():
    class Broken(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            raise OSError("the other end left")

    environ = EnvironBuilder(method="POST").get_environ()
    environ |= {"wsgi.input": Broken(), "wsgi.input_terminated": True}

    assert refusal(ApiRequest(environ).read_json, Body).code == "BODY_BROKEN_OFF"


def test_parameters_are_known_and_there_once():
    assert "known: limit" in refusal(Query, asked("/?limti=1"), ("limit",)).message
    assert "known: none" in refusal(Query, asked("/?x=1"), ()).message
    assert "is there twice" in refusal(Query, asked("/?limit=1&limit=2"), ("limit",)).message
    assert Query(asked("/?label=a=1&label=b=2"), (), many=("label",)).pairs("label") == {"a": "1", "b": "2"}
    Query(asked("/?token=x"), ())


@pytest.mark.parametrize(
    ("text", "value"), [("", True), ("1", True), ("TRUE", True), ("yes", True), ("0", False), ("off", False)]
)
def test_a_flag_is_a_yes_or_a_no(text, value):
    assert Query(asked(f"/?force={text}"), ("force",)).flag("force") is value
    assert Query(asked("/?force"), ("force",)).flag("force") is True
    assert Query(asked("/"), ("force",)).flag("force") is False
    assert "neither true nor false" in refusal(Query(asked("/?force=perhaps"), ("force",)).flag, "force").message


@pytest.mark.parametrize("text", ["-1", "0", "101", "1.5", "x", "", "1e2", "٣", "9" * 400, "0x10"])
def test_a_number_is_whole_and_within_bounds(text):
    query = Query(asked("/", query_string={"n": text}), ("n",))

    assert "is not a whole number between 1 and 100" in refusal(query.integer, "n", 5, 1, 100).message
    assert Query(asked("/"), ("n",)).integer("n", 5, 1, 100) == 5


def test_durations_have_a_bound():
    assert Query(asked("/?wait=1m30s"), ("wait",)).seconds("wait", 100) == 90
    assert Query(asked("/"), ("wait",)).seconds("wait", 100) is None
    assert "is longer than 60 s" in refusal(Query(asked("/?wait=1m30s"), ("wait",)).seconds, "wait", 60).message


@pytest.mark.parametrize("text", ["novalue", "=x"])
def test_pairs_have_a_key_and_a_value(text):
    assert "is not KEY=VALUE" in refusal(Query(asked(f"/?arg={text}"), (), many=("arg",)).pairs, "arg").message


def test_an_answer_is_the_envelope_without_what_is_nothing():
    response = answer("done", status=201, next_cursor=None, more=1)

    assert (response.status_code, response.mimetype) == (201, "application/json")
    assert json.loads(response.get_data()) == {"success": True, "message": "done", "more": 1}


class Source:
    closed = 0

    def close(self):
        self.closed += 1


@pytest.mark.parametrize(
    ("error", "code"),
    [(Unavailable("the engine is away", code="ENGINE_AWAY"), "ENGINE_AWAY"), (ValueError("secret"), "INTERNAL")],
)
def test_an_error_in_the_middle_of_a_stream_is_its_last_line(error, code, caplog):
    def lines():
        yield {"n": 1}
        raise error

    source = Source()
    response = stream_lines(source, lines())

    first, second, last = response.get_data().split(b"\n")[:3]
    assert (first, json.loads(second)) == (b"", {"n": 1})
    assert json.loads(last)["error"]["code"] == code
    assert b"secret" not in last
    assert source.closed == 1
    assert ("internal error" in caplog.text) is (code == "INTERNAL")


def test_a_stream_that_nobody_reads_to_its_end_is_closed():
    source = Source()
    response = stream_bytes(source, iter([b"a", b"b"]))
    pieces = iter(response.response)
    assert next(pieces) == b"a"

    pieces.close()

    assert source.closed == 1


def test_a_bug_is_found_by_its_id(caplog):
    ident = log_bug(ValueError("x"), "GET /agents")

    assert f"internal error {ident} in GET /agents" in caplog.text


def moment(text):
    return Query(asked(query_string={"since": text} if text else {}), ("since",)).moment("since")


@pytest.mark.parametrize(
    ("text", "at"),
    [("", 0.0), ("1795213420", 1795213420.0), ("1795213420.5", 1795213420.5), ("2026-11-20T22:23:40Z", 1795213420.0),
     ("2026-11-20T23:23:40 01:00", 1795213420.0)],
)  # fmt: skip
def test_a_time_is_epoch_or_rfc_3339_also_where_a_plus_became_a_space(text, at):
    assert moment(text) == at


def test_or_a_duration_ago():
    assert abs(moment("10m") - (time.time() - 600)) < 5
    with pytest.raises(InvalidParameter):
        moment("ten minutes")


def test_a_stream_that_nobody_reads_at_all_is_closed_too():
    for stream in (stream_bytes, stream_lines, stream_events):
        source = Source()

        pieces = stream(source, iter([]))(create_environ(method="HEAD"), lambda *_: None)
        assert list(pieces) == []
        pieces.close()

        assert source.closed == 1
