"""Having agents of the native tier forget a conversation whose session was deleted: what they keep of it is in their volumes.

Asked are the containers that run; one that does not keeps it until its volume goes.
"""

import logging
from urllib.parse import quote

from agentainerd.errors import AgentainerError
from agentainerd.model.bridges import Bridge
from agentainerd.proxy.target import Target
from agentainerd.services.agent_calls import AgentCall, CallBroken
from agentainerd.services.run_means import Means

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
_NEVER_HEARD_OF = (404, 405, 501)


def forget(means: Means, agent_ref: str, session_id: str) -> None:
    """Ask an agent, by its id or name, to forget a session. Blocks; raises nothing."""
    try:
        agent = means.fleet.find(agent_ref)
        route = means.fleet.route(agent.id)
        for target in route.serving if route is not None else ():
            if means.bridges.of(agent.id, target) is Bridge.NATIVE:
                _ask(target, session_id)
    except AgentainerError as error:
        log.info("nobody was asked to forget a session: %s", error.message, extra={"session_id": session_id})


def _ask(target: Target, session_id: str) -> None:
    call = AgentCall(target)
    try:
        call.send("DELETE", f"/conversations/{quote(session_id, safe='')}", None, {}, timeout_s=TIMEOUT_S)
        if not (200 <= call.status < 300 or call.status in _NEVER_HEARD_OF):
            log.warning(
                "an agent did not forget a session: it answered %s", call.status, extra={"session_id": session_id}
            )
    except CallBroken as error:
        log.warning("an agent was not asked to forget a session: %s", error.reason, extra={"session_id": session_id})
    finally:
        call.close()
