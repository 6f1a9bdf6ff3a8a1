"""The events of any run in the dialects of the documents, whoever started it. Their streams have neither ids nor heartbeats."""

from collections.abc import Callable, Iterator

import msgspec

from agentainerd.model.dialect_agno import AgnoProjection, RunStory, encode
from agentainerd.model.dialect_bridge import BridgeProjection
from agentainerd.model.media import Media
from agentainerd.model.runs import Run, RunEvent

DIALECTS = ("agno", "bridge")
OPENING = b":\n"
"""A comment: it sends the head of the answer, as the first event may be a long time away."""
Translator = Callable[[RunEvent], bytes]
Rest = Callable[[], bytes]  # what ends a stream whose run waits for an answer


def story_of(run: Run, context_id: str = "") -> RunStory:
    """Return what AgentOS's events say of a run. `context_id`: what the client calls it."""
    media = [msgspec.convert(one, Media) for one in run.media]
    return RunStory(run.id, run.agent_id, run.session_id, run.input, media, context_id, run.model)


def translated(
    found: Iterator[RunEvent | None], name: str, run: Run, after: int, types: frozenset[str]
) -> Iterator[bytes]:
    """Return the events of a run from its first on in the dialect `name`; sent is what number `after` is not beyond, and the
    last one always. `types`: of AgentOS's events.
    """
    translate, rest = _agno(run, types) if name == "agno" else _bridge(run)
    yield OPENING
    for event in found:
        if event is None:
            continue
        frames = translate(event)
        if event.seq > after or event.is_last:
            yield frames
    yield rest()


def _agno(run: Run, types: frozenset[str]) -> tuple[Translator, Rest]:
    projection = AgnoProjection(story_of(run))
    return (
        lambda event: encode(projection.feed(msgspec.json.decode(event.payload), event.at), types),
        lambda: encode(projection.rest(), types),
    )


def _bridge(run: Run) -> tuple[Translator, Rest]:
    projection = BridgeProjection(run.input)
    return (
        lambda event: b"".join(projection.feed(msgspec.json.decode(event.payload), event.at)),
        lambda: b"".join(projection.rest()),
    )
