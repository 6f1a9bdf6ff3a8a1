import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentainerd.errors import InvalidParameter
from agentainerd.model.media import MAX_ATTACHMENTS, Media, effective_input, parse_media

PICTURE = {"type": "image", "url": "https://example.com/a.png"}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["type", "url", "path", "media", "name", "x"]), inner),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize("none", [None, [], {"media": None}, {"media": []}])
def test_there_may_be_none(none):
    assert parse_media(none) == ()


@pytest.mark.parametrize("form", [PICTURE, [PICTURE], {"media": PICTURE}, {"media": [PICTURE]}])
def test_every_form_is_the_same_attachment(form):
    assert parse_media(form) == (Media(type="image", url="https://example.com/a.png"),)


@pytest.mark.parametrize("kind", ["image", "AUDIO", " Video ", "File\n"])
def test_a_kind_is_one_whatever_its_case_and_spaces(kind):
    assert parse_media({"type": kind, "path": "/a"})[0].type == kind.strip().lower()


def test_what_is_optional_is_kept_where_it_is_text_and_dropped_where_it_is_not():
    whole = {**PICTURE, "path": "a.png", "content_type": "image/png", "name": "a", "metadata": {"by": "me", "size": 7}}
    odd = {**PICTURE, "path": 7, "content_type": None, "name": ["a"], "metadata": "none", "more": 1}

    assert parse_media([whole, odd]) == (
        Media(type="image", url=PICTURE["url"], path="a.png", content_type="image/png", name="a", metadata={"by": "me"}),
        Media(type="image", url=PICTURE["url"]),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("a.png", "media[0]"),
        (7, "media[0]"),
        (True, "media[0]"),
        ({}, "media[0]"),
        ([PICTURE, None], "media[1]"),
        ([PICTURE, "a.png"], "media[1]"),
        ([[PICTURE]], "media[0]"),
        ({"media": "a.png"}, "media[0]"),
        ({"media": {"media": [PICTURE]}}, "media[0]"),
        ({"type": "image"}, "media[0]"),
        ({"type": "image", "url": "", "path": "  "}, "media[0]"),
        ({"type": "image", "url": 7}, "media[0]"),
        ({"url": "https://example.com"}, "media[0]"),
        ({"type": "picture", "url": "https://example.com"}, "media[0]"),
        ({"type": 7, "url": "https://example.com"}, "media[0]"),
        ([PICTURE] * (MAX_ATTACHMENTS + 1), f"media[{MAX_ATTACHMENTS}]"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(value, place):
    with pytest.raises(InvalidParameter) as caught:
        parse_media(value)

    assert caught.value.code == "INVALID_MEDIA"
    assert caught.value.message.startswith(f"{place}: ")


@given(json_values)
def test_any_json_is_attachments_or_an_error_that_says_so(value):
    try:
        found = parse_media(value)
    except InvalidParameter as error:
        assert error.code == "INVALID_MEDIA"
        assert error.message.startswith("media[")
    else:
        assert all(one.type in ("image", "audio", "video", "file") and (one.url or one.path) for one in found)


@pytest.mark.parametrize(
    ("text", "count", "asked"),
    [
        ("look", 2, "look"),
        (" look ", 0, " look "),
        ("", 1, "Media request (1 attachment)"),
        (" \n", 3, "Media request (3 attachments)"),
        (" \n", 0, ""),
    ],
)
def test_attachments_alone_are_something_to_ask(text, count, asked):
    assert effective_input(text, parse_media([PICTURE] * count)) == asked
