"""Whatever JSON is sent to the routes of the documents: it is done, or refused in their words; never a bug."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = (
    "agent_id", "user_id", "name", "metadata", "state", "team_id", "input", "session_id", "stream", "media", "run_context",
    "on_disconnect", "type", "url", "path", "run_id", "task", "newTask", "message",
)  # fmt: skip
VALUES = ("", " ", "web", "nobody", "image", "continue", "\x00", "\ud800", "é", "a/../b", "x" * 300)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(VALUES) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)
bodies = st.dictionaries(st.sampled_from(NAMES), values, max_size=5) | values
ROUTES = (
    ("POST", "/api/v1/sessions"),
    ("PUT", "/api/v1/sessions/{session}"),
    ("POST", "/api/v1/sessions/{session}/reuse"),
    ("POST", "/api/v1/sessions/{session}/summary"),
    ("POST", "/api/v1/agents/nobody/run"),
    ("POST", "/api/v1/agents/nobody/run/stream"),
    ("POST", "/api/agents/nobody/start"),
    ("POST", "/api/agents/nobody/resume"),
    ("POST", "/api/agents/nobody/chat"),
)


@settings(max_examples=15)
@given(body=bodies)
def test_any_json_is_taken_or_refused(world, body):
    client = world.client()
    session = client.call("POST", "/api/v1/sessions", json={"agent_id": "web"})[1]["session_id"]
    for method, path in ROUTES:
        answer = client.open(path.format(session=session), method=method, data=json.dumps(body))
        said = json.loads(answer.get_data())

        assert answer.status_code in (200, 201, 400, 404, 429), (path, body, said)
        assert answer.status_code < 400 or (said["error"] and said["code"] != "INTERNAL"), (path, body, said)
