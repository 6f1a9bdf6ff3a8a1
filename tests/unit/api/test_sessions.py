"""`/api/v1/sessions` as clients of AgentOS meet it: shapes, times, errors. Runs in them are in test_agentos.py."""

import pytest

from agentainerd import defaults
from agentainerd.api.access import Door
from tests.fakes.redis import RedisProcess
from tests.fakes.world import World

ROOT = "/api/v1/sessions"
UNKNOWN = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def client(world):
    return world.client()


@pytest.fixture
def made(client):
    """Return a function that makes a session and returns it."""

    def make(**fields):
        status, session = client.call("POST", ROOT, json={"agent_id": "web", **fields})
        assert status == 201
        return session

    return make


def error(answer):
    status, said = answer
    assert set(said) >= {"status", "error", "message", "code"}
    assert said["status"] == "error"
    return status, said["error"], said["code"]


def test_a_session_is_made_for_an_agent_that_is_not_there(client):
    given = {"agent_id": "test-agent", "user_id": "test-user", "name": "Test Session", "metadata": {"a": [1]}}
    status, session = client.call("POST", ROOT, json=given)

    assert status == 201
    assert {name: session[name] for name in given} == given
    assert len(session["session_id"]) == 36
    assert session["run_count"] == 0
    assert type(session["created_at"]) is type(session["updated_at"]) is int
    assert {"state", "summary", "runs", "team_id"} & set(session) == set()
    assert client.call("GET", f"{ROOT}/{session['session_id']}") == (200, session)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"user_id": "u"}', "agent_id"),
        (b'{"agent_id": ""}', "agent_id"),
        (b'{"agent_id": null}', "agent_id"),
        (b'{"agent_id": 7}', "agent_id"),
        (b'{"agent_id": "a", "metadata": []}', "metadata"),
        (b"", "empty"),
        (b"{", "not JSON"),
        (b"[]", "object"),
        (b'"text"', "object"),
        (b"\xff", "not JSON"),
        (b"[" * 5000, "not JSON"),
    ],
)
def test_a_session_that_can_not_be_is_refused(client, body, said):
    answer = client.call("POST", ROOT, data=body, content_type="application/json")

    assert error(answer) == (400, "invalid request", "INVALID_REQUEST")
    assert said in answer[1]["message"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/json"])
def test_a_body_is_json_whatever_it_is_called_and_what_is_unknown_in_it_is_passed_over(client, kind):
    status, session = client.call("POST", ROOT, data=b'{"agent_id": "web", "shoe_size": 44}', content_type=kind)

    assert (status, session["agent_id"]) == (201, "web")
    assert "shoe_size" not in session


@pytest.mark.parametrize("path", ["", "/summary", "/history", "/messages", "/export"])
def test_a_session_that_is_not_there(client, path):
    answer = client.call("GET", f"{ROOT}/{UNKNOWN}{path}")

    assert error(answer) == (404, "session not found", "SESSION_NOT_FOUND")
    assert answer[1]["message"] == f"session with ID '{UNKNOWN}' not found"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("PUT", "", {}), ("DELETE", "", None), ("POST", "/summary", None), ("POST", "/summary?async=true", None), ("POST", "/reuse", {"user_id": "u"})],
)  # fmt: skip
def test_a_session_that_is_not_there_can_not_be_changed(client, method, path, body):
    assert error(client.call(method, f"{ROOT}/{UNKNOWN}{path}", json=body))[0] == 404


def test_a_session_is_changed_as_a_whole_where_it_is_named(client, made):
    path = f"{ROOT}/{made(name='Original Name', metadata={'old': 1})['session_id']}"
    state = {"agui": {"pane": "history", "filters": ["runs", "errors"]}}

    client.call("PUT", path, json={"state": state})
    status, session = client.call("PUT", path, json={"name": "Updated Name", "metadata": {"key": "value"}})

    assert status == 200
    assert (session["name"], session["metadata"], session["state"]) == ("Updated Name", {"key": "value"}, state)
    assert client.call("GET", path)[1] == session
    kept = client.call("PUT", path, json={"name": "", "state": {}})[1]
    assert (kept["name"], kept["metadata"], "state" in kept) == ("Updated Name", {"key": "value"}, False)


def test_no_change_is_fine_and_no_body_is_not(client, made):
    path = f"{ROOT}/{made()['session_id']}"

    assert client.call("PUT", path, data=b"{}")[0] == 200
    assert error(client.call("PUT", path))[::2] == (400, "INVALID_REQUEST")


def test_a_session_can_be_deleted_once(client, made):
    path = f"{ROOT}/{made()['session_id']}"

    assert client.call("DELETE", path) == (200, {"message": "session deleted successfully"})
    assert error(client.call("GET", path))[0] == 404
    assert error(client.call("DELETE", path))[0] == 404


def test_sessions_are_listed_and_filtered_newest_first(client, made):
    assert client.call("GET", ROOT) == (200, {"sessions": [], "count": 0, "total": 0})
    one = made(agent_id="agent-1", user_id="user-1")
    two = made(agent_id="agent-1", user_id="user-2", team_id="t")
    three = made(agent_id="agent-2", user_id="user-1", workflow_id="w")

    def listed(query):
        status, said = client.call("GET", f"{ROOT}?{query}")
        assert (status, said["count"]) == (200, len(said["sessions"]))
        return [session["session_id"] for session in said["sessions"]], said["total"]

    ids = [session["session_id"] for session in (three, two, one)]
    assert listed("") == (ids, 3)
    assert listed("agent_id=agent-1") == (ids[1:], 2)
    assert listed("agent_id=agent-1&user_id=user-1") == ([ids[2]], 1)
    assert listed("team_id=t") == ([ids[1]], 1)
    assert listed("workflow_id=w") == ([ids[0]], 1)
    assert listed("agent_id=&user_id=") == (ids, 3)
    assert listed("agent_id=nobody") == ([], 0)
    assert listed("limit=1&offset=1") == ([ids[1]], 3)
    assert listed("limit=many&offset=-1&more=1") == (ids, 3)


def test_a_summary_is_there_once_it_was_asked_for(client, made):
    path = f"{ROOT}/{made()['session_id']}/summary"

    assert error(client.call("GET", path)) == (404, "summary not available", "SUMMARY_NOT_FOUND")
    status, said = client.call("POST", path, data=b"no JSON at all")
    assert status == 200
    assert said["summary"]["content"]
    assert set(said["summary"]) == {"content", "run_count", "total_tokens", "created_at"}
    assert said["summary"]["created_at"].endswith("Z")
    assert client.call("GET", path) == (200, said)


@pytest.mark.parametrize("word", ["true", "1", "TRUE"])
def test_a_summary_may_be_asked_for_without_waiting(client, made, word):
    session_id = made()["session_id"]
    path = f"{ROOT}/{session_id}/summary"

    assert client.call("POST", f"{path}?async={word}") == (202, {"status": "scheduled", "session_id": session_id})
    assert client.call("GET", path)[1]["summary"]["content"]


def test_summaries_may_be_turned_off_and_those_that_were_made_stay(client, made, world):
    path = f"{ROOT}/{made()['session_id']}/summary"
    kept = client.call("POST", path)

    world.services.sessions.has_summaries = False

    for query in ("", "?async=true"):
        assert error(client.call("POST", path + query)) == (501, "summaries are disabled", "SUMMARY_DISABLED")
    assert client.call("GET", path) == kept
    assert error(client.call("POST", f"{ROOT}/unknown/summary"))[0] == 404


def test_a_session_is_bound_to_somebody_else(client, made):
    path = f"{ROOT}/{made(agent_id='agent-1', name='n')['session_id']}/reuse"

    status, session = client.call("POST", path, json={"team_id": "team-42"})
    assert (status, session["team_id"], session["agent_id"], session["name"]) == (200, "team-42", "agent-1", "n")
    for body in ({}, {"agent_id": ""}, {"name": "x"}):
        refused = client.call("POST", path, json=body)
        assert error(refused) == (400, "at least one target identifier is required", "INVALID_REQUEST")
    assert client.call("POST", path, json={"agent_id": "b", "user_id": "u", "workflow_id": "w"})[1]["agent_id"] == "b"


@pytest.mark.parametrize("query", ["", "?num_messages=x&stream_events=maybe", "?num_messages=-1", "?num_messages=0"])
def test_a_history_of_nothing_is_empty_lists_and_bad_parameters_count_as_absent(client, made, query):
    session_id = made()["session_id"]

    assert client.call("GET", f"{ROOT}/{session_id}/history{query}") == (
        200, {"session_id": session_id, "messages": [], "stream_events": False, "runs": []},
    )  # fmt: skip


def test_what_a_history_is_asked_to_stream_is_repeated(client, made):
    assert client.call("GET", f"{ROOT}/{made()['session_id']}/history?stream_events=true")[1]["stream_events"] is True


def test_a_body_of_more_than_the_limit_is_413(client, world):
    body = b'{"agent_id": "' + b"x" * defaults.MAX_API_BODY_BYTES + b'"}'

    assert error(client.call("POST", ROOT, data=body)) == (413, "request too large", "BODY_TOO_LARGE")


def test_a_session_too_large_to_keep_is_refused(client):
    metadata = {"text": "x" * defaults.MAX_SESSION_STATE_BYTES}

    assert error(client.call("POST", ROOT, json={"agent_id": "a", "metadata": metadata}))[::2] == (
        400,
        "INVALID_REQUEST",
    )
    assert error(client.call("POST", ROOT, json={"agent_id": "a" * 300}))[::2] == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("path", ["/api/v1/sessions/", "/api/v1/agents/"])
def test_a_slash_at_the_end_makes_no_difference(client, path):
    assert client.call("GET", path)[0] == 200


@pytest.mark.parametrize(
    ("method", "path"), [("PATCH", ROOT), ("GET", "/api/v1/agents/web/run"), ("GET", "/api/v1/teams")]
)
def test_a_wrong_method_and_an_unknown_path_are_404(client, method, path):
    status, said = client.call(method, path)

    assert (status, said["code"]) == (404, "ROUTE_NOT_FOUND")
    assert said["error"]
    assert said["message"]


def test_over_tcp_a_token_is_asked_for(world):
    status, said = world.client(Door.GATEWAY).call("GET", ROOT)

    assert (status, said["code"]) == (401, "UNAUTHORIZED")


def test_a_store_that_is_away_is_told_in_the_words_of_the_document(tmp_path, fake_engine):
    redis = RedisProcess(tmp_path / "redis").start()
    world = World(tmp_path, redis.url, fake_engine).begin()
    try:
        redis.stop()
        for method, path in (("GET", ROOT), ("GET", f"{ROOT}/{UNKNOWN}"), ("DELETE", f"{ROOT}/{UNKNOWN}")):
            answer = world.client().call(method, path)

            assert error(answer) == (500, "the store does not answer", "STORAGE_ERROR")
    finally:
        world.end()


def test_a_session_by_the_beginning_of_its_id(client):
    session = client.call("POST", ROOT, json={"agent_id": "web", "name": "talk"})[1]["session_id"]
    path = f"{ROOT}/{session[:6]}"

    assert client.call("GET", path)[1]["session_id"] == session
    for more in ("/history", "/messages", "/export"):
        assert client.call("GET", path + more)[0] == 200
    assert client.call("PUT", path, json={"name": "other"})[1]["name"] == "other"
    assert client.call("POST", f"{path}/summary")[0] == 200
    assert client.call("GET", f"/api/v1/runs?session_id={session[:6]}")[0] == 200
    assert client.call("GET", f"{ROOT}/{session[:3]}")[0] == 404
    assert client.call("DELETE", path)[0] == 200
    assert client.call("GET", path)[0] == 404
