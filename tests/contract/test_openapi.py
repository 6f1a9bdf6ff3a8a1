"""openapi.yaml against the program: every route is described, everything described exists, and the fields are the real ones."""

import re
from pathlib import Path

import msgspec
import pytest
import yaml

from agentainerd.api.agentos import RunBody
from agentainerd.api.app import ROUTES
from agentainerd.api.scopes import LOCAL, PUBLIC
from agentainerd.api.sessions import CreateBody
from agentainerd.model import agentos
from agentainerd.model.agents import AgentSpec
from agentainerd.model.audit import AuditFilter
from agentainerd.model.interrupts import GivenAnswer, GivenAnswers
from agentainerd.model.media import Media
from agentainerd.model.runs import Limits, Run, RunError, RunEvent, RunRequest, RunStatus, Usage
from agentainerd.model.sessions import FunctionCall, Message, Session, Summary, ToolCall
from agentainerd.services.run_views import run_event_json, run_json
from agentainerd.services.views import agent_json, audit_json, chain_json, summary_json, token_json
from agentainerd.store.requests import Counts
from tests.fakes.world import ADMIN

ROOT = Path(__file__).parents[2]
METHODS = {"get", "post", "delete", "put", "patch"}


@pytest.fixture(scope="module")
def document():
    return yaml.safe_load((ROOT / "agentainerd/api/openapi.yaml").read_text())


def described(document):
    """(METHOD, path) to operation, without what the proxy serves."""
    return {
        (method.upper(), path): operation
        for path, item in document["paths"].items()
        if item.get("x-served-by") != "proxy"
        for method, operation in item.items()
        if method in METHODS
    }


def served():
    """(METHOD, path) to handler, as the route table has it."""
    return {
        (method, re.sub(r"<(?:[a-z]+:)?([a-z_]+)>", r"{\1}", rule.rule)): rule.endpoint
        for rule in ROUTES
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }


def test_every_route_is_described_and_every_description_has_a_route(document):
    assert set(described(document)) == set(served())


def test_public_routes_and_no_others_need_no_token(document):
    handlers = served()
    for key, operation in described(document).items():
        assert (operation.get("security") == []) == (handlers[key] in PUBLIC), key
        assert ("Unix socket only" in operation.get("description", "")) == (handlers[key] in LOCAL), key


def test_every_reference_resolves(document):
    def walk(node):
        if isinstance(node, dict):
            if "$ref" in node:
                target = document
                for part in node["$ref"].removeprefix("#/").split("/"):
                    target = target[part]
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(document)


def test_every_parameter_of_a_path_is_declared(document):
    for (_, path), operation in described(document).items():
        declared = set()
        for parameter in operation.get("parameters", ()):
            if "$ref" in parameter:
                parameter = document["components"]["parameters"][parameter["$ref"].rpartition("/")[2]]
            if parameter["in"] == "path":
                declared.add(parameter["name"])
        assert declared == set(re.findall(r"{(\w+)}", path)), path


def test_the_deploy_body_has_the_fields_of_a_spec(document):
    assert set(document["components"]["schemas"]["Deploy"]["properties"]) == {*AgentSpec.__struct_fields__, "ports"}


def test_an_agent_has_the_fields_that_are_described(document, world):
    agent = world.deploy()
    shown = agent_json(agent, world.route(), Counts())

    assert set(document["components"]["schemas"]["Agent"]["properties"]) == set(shown)


def test_a_request_has_the_fields_that_are_described(document, world):
    agent = world.deploy()
    world.journal.accept(world.record(agent, "/x"))
    found, _ = world.requests.page(agent.id, limit=1)

    shown = summary_json(found[0], 8)

    assert set(document["components"]["schemas"]["RequestSummary"]["properties"]) == set(shown)


def test_a_run_and_its_events_have_the_fields_that_are_described(document):
    schemas = document["components"]["schemas"]
    event = RunEvent(seq=1, at=1.0, type="RUN_STARTED", payload=msgspec.Raw(b"{}"))
    run = Run(
        id="r", agent_id="a", agent="web", input="x", created_at=1.0, session_id="s", media=[{}], model="m", bridge="agui",
        started_at=1.0, finished_at=1.0, error=RunError("error", "x"), starts_at=1.0, status=RunStatus.INPUT_REQUIRED,
        interrupts=[{"id": "i"}], answer_by=1.0,
    )  # fmt: skip

    assert set(schemas["RunInput"]["properties"]) == set(GivenAnswers.__struct_fields__)
    entry = schemas["RunInput"]["properties"]["resume"]["items"]["properties"]
    assert set(entry) == {field.encode_name for field in msgspec.structs.fields(GivenAnswer)}
    assert set(schemas["RunRequest"]["properties"]) == set(RunRequest.__struct_fields__)
    assert set(schemas["RunLimits"]["properties"]) == set(Limits.__struct_fields__)
    assert set(schemas["RunUsage"]["properties"]) == set(Usage.__struct_fields__)
    assert set(schemas["Run"]["properties"]) == set(run_json(run))
    assert set(schemas["RunEvent"]["properties"]) == set(run_event_json(run, event))
    assert schemas["RunStatus"]["enum"] == list(RunStatus)


def test_an_audit_entry_and_a_check_have_the_fields_that_are_described(document, world):
    world.deploy()
    found, _ = world.services.audit.page(AuditFilter(), 1)
    schemas = document["components"]["schemas"]

    assert set(schemas["AuditEntry"]["properties"]) == set(audit_json(found[0]))
    assert set(schemas["AuditChain"]["properties"]) == set(chain_json(world.services.audit.verify()))


def test_a_token_has_the_fields_that_are_described(document, world):
    made, _ = world.services.named_tokens.create(ADMIN, "ci", ["read"], 0.0)

    assert set(document["components"]["schemas"]["Token"]["properties"]) == set(token_json(made))


def test_a_session_and_what_it_has_have_the_fields_that_are_described(document):
    summary = Summary(content="c", run_count=1, total_tokens=1, created_at=1.0)
    links = dict.fromkeys(("agent_id", "user_id", "team_id", "workflow_id", "name"), "x")
    session = Session(
        id="s", **links, metadata={"a": 1}, state={"a": 1}, summary=summary, created_at=1.0, updated_at=1.0
    )
    run = Run(
        id="r", agent_id="a", agent="web", input="x", status=RunStatus.CANCELLED, error=RunError("cancelled", "why"),
        session_id="s", media=[{"type": "file", "path": "p"}], created_at=1.0, started_at=1.0, finished_at=2.0,
    )  # fmt: skip
    call = ToolCall("c", FunctionCall("f", "{}"))
    message = Message(
        id="m", role="tool", name="n", tool_call_id="c", tool_calls=[call], reasoning="r", run_id="r", at=1.0
    )
    schemas = document["components"]["schemas"]

    def fields(name):
        return set(schemas[name]["properties"])

    assert fields("Session") == set(agentos.session_json(session, [run]))
    assert fields("SessionRun") == set(agentos.run_meta_json(run))
    assert fields("SessionSummary") == set(agentos.summary_json(summary))
    assert fields("SessionMessage") == {*agentos.message_json(message), *agentos.origin_json(message)}
    answer = agentos.run_json(run)
    assert fields("AgentosAnswer") == set(answer)
    assert set(schemas["AgentosAnswer"]["properties"]["metadata"]["properties"]) == set(answer["metadata"])
    assert fields("NewSession") == set(CreateBody.__struct_fields__)
    assert fields("AgentosRun") == set(RunBody.__struct_fields__)
    assert fields("Media") == set(Media.__struct_fields__)


def test_every_error_is_the_envelope(document):
    for name, response in document["components"]["responses"].items():
        assert response["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}, name


def test_a_template_has_the_fields_that_are_described(document, make_world, tmp_path):
    (tmp_path / "a.yaml").write_text("prompt: ${x}\nparameters: {x: }\n")
    client = make_world(jobs={"templates_dir": str(tmp_path)}).client()
    schemas = document["components"]["schemas"]

    listed = client.call("GET", "/api/v1/templates")[1]["data"][0]

    assert set(schemas["TemplateSummary"]["properties"]) == set(listed)
    assert set(schemas["TemplateParameter"]["properties"]) == set(listed["parameters"]["x"])
    assert set(schemas["Template"]["properties"]) == set(client.call("GET", "/api/v1/templates/a")[1]["data"])
