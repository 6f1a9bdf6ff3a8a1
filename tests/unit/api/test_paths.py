"""Every route of the API, its path spelled in every way that somebody could read as another one."""

import re
from urllib.parse import unquote

import pytest
from hypothesis import given, settings, strategies
from werkzeug.exceptions import HTTPException
from werkzeug.test import Client, EnvironBuilder

from agentainerd.api import images, jobs
from agentainerd.api.access import Door
from agentainerd.api.app import ROUTES, App, check_path
from agentainerd.api.exchange import ApiRequest
from agentainerd.errors import NotFound

RULES = [rule for rule in ROUTES if rule.rule != "/"]  # which has nothing that could be spelled otherwise
CASES = [(method, rule) for rule in RULES for method in sorted(rule.methods - {"HEAD", "OPTIONS"})]
SAME = {"", "/", "?", "?x=%2f", "?a=../.."}
"""What may be put behind a path without making another one of it."""


def concrete(rule: str) -> str:
    return re.sub(r"<(?:path:)?(\w+)>", lambda name: "web" if name[1] == "ref" else "0123-id", rule)


def spellings(path: str) -> list[str]:
    """Return `path` changed in one place each, percent-encodings not decoded."""
    slashes = [at for at, sign in enumerate(path) if sign == "/"]
    ends = (
        "//", "/.", "/..", "/./", "/../", "/%2e", "/%2e%2e", "/%2E.", "%00", "%00.json", "%2f", "%2F", "%2f..", ";", ";x=1", "%3b",
        "%3f", "%23", "%20", "%09", "%0a", "%0d%0aX-A:%20b", "%7f", "%25", "%252f", "%", "%zz", "%2", "%ff", "%c0%af", "%e0%80%af",
        "%u002f", "\\", "%5c", ".json", "~", ".", "..", "'", '"', "%22", "<x>", "*", "{}", "%e2%80%ae", ":", "@", "&", "=", "+", ",",
    )  # fmt: skip
    found = [path + end for end in (*ends, *SAME)]
    found += [
        start + path
        for start in (
            "/",
            "/.",
            "/..",
            "/x/..",
            "/%2e",
            "/%2e%2e",
            "/;",
            "/%00",
            "/agents/..",
            "/token/..",
            "/v1",
            "/%2f",
        )
    ]
    for at in slashes:
        for text in ("//", "/./", "/../", "/%2e/", "/%2e%2e/", "/;/", "/%00/", "/ /", "/%20/"):
            found.append(path[:at] + text + path[at + 1 :])
        for text in ("%2f", "%2F", "%252f", "\\", "%5c", "%c0%af", ";"):
            if at:
                found.append(path[:at] + text + path[at + 1 :])
        for text in (path[at + 1 : at + 2].upper(), f"%{ord(path[at + 1]):02x}", f"%25{ord(path[at + 1]):02x}"):
            found.append(path[: at + 1] + text + path[at + 2 :])
    found += [path.upper(), path.title(), "".join(f"%{ord(sign):02x}" if sign != "/" else sign for sign in path)]
    return list(dict.fromkeys(found))


def find(app: App, method: str, path: str):
    """Return the handler that a path leads to, or None where there is none."""
    found = look_up(app, method, path)
    return found and found[0]


def look_up(app: App, method: str, path: str):
    """Return (handler, values), or None; as behind the control server, which decodes as pywsgi does."""
    environ = EnvironBuilder(path="/", method=method).get_environ()
    raw = path.partition("?")[0]
    environ["RAW_URI"] = path
    environ["PATH_INFO"] = unquote(raw, "latin-1")
    try:
        return app._find(ApiRequest(environ))
    except (NotFound, HTTPException):
        return None


@pytest.mark.parametrize(("method", "rule"), CASES, ids=lambda value: getattr(value, "rule", value))
def test_no_spelling_of_a_path_leads_to_the_handler_of_another_route(world, method, rule):
    app = App(world.services, door=Door.CONTROL)
    path = concrete(rule.rule)
    assert find(app, method, path) is rule.endpoint

    strange = {one: found for one in spellings(path) if (found := find(app, method, one)) not in (None, rule.endpoint)}

    assert strange == {}
    assert all(find(app, method, path + end) is rule.endpoint for end in SAME)


@pytest.mark.parametrize(
    "path", ["/agents/web%2fstart", "/agents/a%2Frequests", "/agents/web/requests/.", "/requests/x%2fresponse"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_what_is_encoded_in_a_segment_stays_in_it(world, method, path):
    assert find(App(world.services, door=Door.CONTROL), method, path) is None


WORDS = sorted({word for rule in ROUTES for word in re.sub(r"<.*?>", "web", rule.rule).split("/") if word})
PIECES = [
    *WORDS, "x", "é", "%", "%2f", "%2F", "%2e", "%2E%2e", ".", "..", ";", "%3b", "%00", "%25", "%5c", "\\", "%20", "%c3%a9", "%ff",
    "%61", "~",
]  # fmt: skip
segments = strategies.lists(strategies.lists(strategies.sampled_from(PIECES), max_size=2).map("".join), max_size=5)


@pytest.fixture
def app(world):
    return App(world.services, door=Door.CONTROL)


@settings(max_examples=400, derandomize=True)
@given(segments, strategies.sampled_from(["GET", "POST", "DELETE"]))
def test_what_a_handler_is_given_is_what_stands_between_the_slashes(app, parts, method):
    path = "/" + "/".join(parts)
    found = look_up(app, method, path)
    if found is None:
        return
    handler, values = found

    decoded = [unquote(part) for part in path.removesuffix("/").split("/")]
    rules = [rule.rule for rule in ROUTES if rule.endpoint is handler]
    spelled = [re.sub(r"<(?:path:)?(\w+)>", lambda name: values[name[1]], rule) for rule in rules]
    assert "/".join(decoded) in [one.removesuffix("/") for one in spelled]
    assert handler is images.get or not any("/" in value for value in values.values())


def test_no_spelling_of_any_path_is_an_internal_error(world, caplog):
    client = Client(App(world.services, door=Door.CONTROL))
    peer = {"agentainer.peer": (1, 0, 0)}
    statuses = set()
    for rule in RULES:
        if "build" in rule.rule or "pull" in rule.rule or "rotate" in rule.rule:
            continue
        for method in ("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS"):
            for path in spellings(concrete(rule.rule))[:: 3 if method == "GET" else 17]:
                with client.open(path, method=method, environ_overrides=peer) as answer:
                    statuses.add(answer.status_code)

    assert statuses <= {200, 204, 400, 404, 405, 409, 415, 422, 503}
    assert "internal error" not in caplog.text


@pytest.mark.parametrize(
    "path", ["//agents", "/agents//", "///token", "/agents//web", "//", "/.", "/%2e", "/;", "/%2f"]
)
def test_slashes_are_not_merged(world, path):
    """A rule of a proxy in front that closes /token must not be got around with //token."""
    assert find(App(world.services, door=Door.CONTROL), "GET", path) is None


@pytest.mark.parametrize(
    "path", ["/images/library/nginx:1.25", "/images/library%2Fnginx:1.25", "/images/a@sha256:00", "/", "", "*"]
)
def test_images_have_slashes(path):
    check_path(path)


@pytest.mark.parametrize(
    "path",
    ["/images/../token", "/images/a%2f..%2fb", "/images/%2e%2e", "/images/a%00", "/images/a%5cb", "/images/%252e"],
)
def test_but_no_dot_segments(path):
    with pytest.raises(HTTPException):
        check_path(path)


FILES = "/api/v1/jobs/0123-id/artifacts"


@pytest.mark.parametrize("name", ["100%25;a.txt", "a%5cb", "%3b/c", "%252e%252e", "sub/a%3db"])
def test_files_of_jobs_are_called_as_they_are(world, name):
    handler, values = look_up(App(world.services, door=Door.CONTROL), "GET", f"{FILES}/{name}")

    assert (handler, values["name"]) == (jobs.artifact, unquote(name))


@pytest.mark.parametrize("name", ["..", "a/%2e%2e/b", "%2e", "a%2fb", "a%00", "a//b", "%ff"])
def test_but_lead_nowhere_else(name):
    with pytest.raises(HTTPException):
        check_path(f"{FILES}/{name}")


def test_and_nothing_before_them_is_as_free():
    with pytest.raises(HTTPException):
        check_path("/api/v1/jobs/01;23/artifacts/a")
