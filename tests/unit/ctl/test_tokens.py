"""`token` as a process: what is on stdout is the token and nothing else."""

import json

CI = {
    "id": "abcd1234", "name": "ci", "scopes": ["agent:web", "operate"], "created_at": "2026-01-01T00:00:00.000Z",
    "expires_at": "2099-01-01T00:00:00.000Z", "is_expired": False, "last_used_at": None, "rotated_at": None, "old_until": None,
}  # fmt: skip
MADE = {**CI, "token": "agt_abcd1234_x_y"}


def test_a_new_token_alone_is_on_stdout(api, run):
    api.on("POST", "/tokens", MADE, status=201)

    said = run("token", "create", "ci", "--scope", "operate,agent:web", "--expires", "30d")

    assert (said.code, said.out) == (0, "agt_abcd1234_x_y\n")
    assert said.err.startswith("Token 'ci' expires in ") and said.err.endswith(". It is not shown again.\n")
    assert api.asked[0].json == {"name": "ci", "scopes": ["operate", "agent:web"], "expires_in_s": 2592000.0}


def test_the_daemon_says_how_long_it_is_good_where_nobody_else_does(api, run):
    api.on("POST", "/tokens", {**MADE, "expires_at": None}, status=201)

    said = run("token", "create", "ci", "--scope", "read", "--scope", "agent:web")
    never = run("token", "create", "ci", "--scope", "read", "--expires", "never", "-q")

    assert "does not expire" in said.err
    assert [asked.json.get("expires_in_s") for asked in api.asked] == [None, 0]
    assert (never.out, never.err) == ("agt_abcd1234_x_y\n", "")


def test_a_token_without_a_scope_or_time_is_not_asked_for(api, run):
    assert run("token", "create", "ci").code == 2
    assert run("token", "create", "ci", "--scope", "read", "--expires", "0").code == 2
    assert run("token", "create", "ci", "--scope", "read", "--expires", "soon").code == 2
    assert api.asked == []


def test_tokens_are_a_table(api, run):
    api.on(
        "GET", "/tokens", [CI, {**CI, "name": "old", "is_expired": True}, {**CI, "name": "ever", "expires_at": None}]
    )

    lines = run("token", "list").out.splitlines()

    assert lines[0].split() == ["NAME", "ID", "SCOPES", "CREATED", "EXPIRES", "LAST", "USED"]
    assert lines[1].startswith("ci     abcd1234   agent:web, operate   ")
    assert "expired" in lines[2]
    assert lines[3].split()[-2:] == ["never", "never"]


def test_wide_tells_of_rotations(api, run):
    api.on(
        "GET",
        "/tokens",
        [{**CI, "rotated_at": "2026-01-01T00:00:00.000Z", "old_until": "2099-01-01T00:00:00.000Z"}, CI],
    )

    lines = run("token", "list", "-o", "wide").out.splitlines()

    assert lines[0].split()[-4:] == ["ROTATED", "OLD", "ONE", "GOOD"]
    assert " ago   ends in " in lines[1]
    assert lines[2].split()[-2:] == ["never", "no"]


def test_without_any_it_says_how_to_make_one(api, run):
    api.on("GET", "/tokens", [])

    assert run("token", "list") == (0, "No named tokens. Make one: agentainerctl token create NAME --scope read\n", "")
    assert run("token", "list", "-o", "json").out == "[]\n"


def test_several_are_revoked_one_after_the_other(api, run):
    api.on("DELETE", "/tokens/ci", {"id": "abcd1234", "name": "ci"})
    api.on("DELETE", "/tokens/gone", status=404, message="Token not found: gone", code="TOKEN_NOT_FOUND")

    said = run("token", "revoke", "ci", "gone")

    assert (said.code, said.out) == (8, "Token ci revoked\n")
    assert "Token not found: gone" in said.err


def test_a_named_token_is_rotated_with_grace(api, run):
    api.on("POST", "/tokens/ci/rotate", MADE)

    said = run("token", "rotate", "ci", "--grace", "24h")

    assert said.out == "agt_abcd1234_x_y\n"
    assert "the old one is good for 24 hours more." in said.err
    assert api.asked[0].json == {"grace_s": 86400.0}
    assert "the old one is good no longer." in run("token", "rotate", "ci").err


def test_grace_is_for_named_tokens(api, run):
    said = run("token", "rotate", "--grace", "1h")

    assert said.code == 2
    assert "--grace: is for named tokens" in said.err
    assert api.asked == []


def test_as_json(api, run):
    api.on("POST", "/tokens", MADE, status=201)

    assert json.loads(run("token", "create", "ci", "--scope", "read", "-o", "json").out) == MADE
