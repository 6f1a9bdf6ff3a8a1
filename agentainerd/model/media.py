"""Attachments of a run: the three forms in which clients send them, and what is wrong with the others. Nothing is fetched.

The forms are those of the AgentOS document: a list of objects, one object, or an object whose `media` is one of the two.
"""

from collections.abc import Sequence

import msgspec

from agentainerd.errors import InvalidParameter

KINDS = ("image", "audio", "video", "file")
MAX_ATTACHMENTS = 100
CODE = "INVALID_MEDIA"


class Media(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attachment. `type`: one of KINDS. `url`, `path`: where it is, at least one of them; never looked at by the daemon."""

    type: str
    url: str = ""
    path: str = ""
    content_type: str = ""
    name: str = ""
    metadata: dict[str, str] = {}


def parse_media(value: object) -> tuple[Media, ...]:
    """Return the attachments in a decoded JSON value; none for null and []. What is optional and no text is left out.

    Raises:
        InvalidParameter: anything else, with the code INVALID_MEDIA and the place ("media[2]").
    """
    if isinstance(value, dict) and "media" in value and "type" not in value:
        value = value["media"]
    if value is None:
        return ()
    if isinstance(value, dict):
        return (_attachment(0, value),)
    if not isinstance(value, list):
        raise _wrong(0, f"{_kind(value)} is no attachment; send an object, or a list of objects")
    if len(value) > MAX_ATTACHMENTS:
        raise _wrong(MAX_ATTACHMENTS, f"is one too many: at most {MAX_ATTACHMENTS} attachments")
    return tuple(_attachment(index, one) for index, one in enumerate(value))


def effective_input(text: str, media: Sequence[Media]) -> str:
    """Return what the agent is asked: the text, or where it is blank, how many attachments there are; "" for neither."""
    if text.strip() or not media:
        return text if text.strip() else ""
    return f"Media request ({len(media)} attachment{'s' if len(media) > 1 else ''})"


def _attachment(index: int, value: object) -> Media:
    if not isinstance(value, dict):
        raise _wrong(index, f"{_kind(value)} is no attachment, which is an object with type and url or path")
    kind = _text(value, "type").lower()
    if kind not in KINDS:
        given = f"{value['type']!r:.64}" if "type" in value else "missing"
        raise _wrong(index, f"type is {given}; it is one of {', '.join(KINDS)}")
    url, path = _text(value, "url"), _text(value, "path")
    if not url and not path:
        raise _wrong(index, "url or path is required")
    metadata = value.get("metadata")
    return Media(
        type=kind,
        url=url,
        path=path,
        content_type=_text(value, "content_type"),
        name=_text(value, "name"),
        metadata={key: one for key, one in metadata.items() if isinstance(one, str)}
        if isinstance(metadata, dict)
        else {},
    )


def _text(value: dict[str, object], name: str) -> str:
    found = value.get(name)
    return found.strip() if isinstance(found, str) else ""


def _kind(value: object) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list", type(None): "null"}
    return names.get(type(value), "an object")


def _wrong(index: int, reason: str) -> InvalidParameter:
    return InvalidParameter(f"media[{index}]", reason, code=CODE)
