"""What a request needs, against what a backend can do: the whole table."""

from typing import Any

import msgspec
import pytest

from inferd_daemon.backends.base import (
    Capabilities,
    EmbedRequest,
    GenerateRequest,
    Media,
    RerankRequest,
)
from inferd_daemon.routing.requirements import AnyRequest, missing
from inferd_proto import (
    Audio,
    AudioAttachment,
    Block,
    ErrorCode,
    Image,
    ImageAttachment,
    Message,
    Text,
    Tool,
    ToolResult,
    Video,
    VideoAttachment,
)

ALL = Capabilities(
    tools=True,
    tool_choice=True,
    response_format=True,
    grammar=True,
    thinking=True,
    vision=True,
    audio=True,
    embed=True,
    rerank=True,
)
TOOL = Tool("look", {"type": "object"})
MEDIA = {
    "i": Media(ImageAttachment("i", 1, 1), b"rgb"),
    "a": Media(AudioAttachment("a", 16_000), b"\0\0\0\0"),
    "v": Media(VideoAttachment("v"), b""),
}


def asking(*blocks: Block, **fields: Any) -> GenerateRequest:  # noqa: ANN401  fields of any type
    return GenerateRequest([Message("user", [Text("hi"), *blocks])], media=MEDIA, **fields)


INVALID = ErrorCode.INVALID_REQUEST
UNSUPPORTED = ErrorCode.ATTACHMENT_UNSUPPORTED


@pytest.mark.parametrize(
    ("request_", "lacking", "code", "message"),
    [
        (asking(), "generate", INVALID, "does not support generation"),
        (asking(tools=[TOOL]), "tools", INVALID, "does not support tools"),
        (
            asking(tools=[TOOL], tool_choice="required"),
            "tool_choice",
            INVALID,
            "cannot enforce `tool_choice`",
        ),
        (
            asking(response_schema={}),
            "response_format",
            INVALID,
            "cannot enforce `response_format`",
        ),
        (asking(grammar="root ::= x"), "grammar", INVALID, "cannot enforce `grammar`"),
        (asking(Image("i")), "vision", UNSUPPORTED, "does not support images"),
        (asking(Audio("a")), "audio", UNSUPPORTED, "does not support audio"),
        (EmbedRequest(["x"]), "embed", ErrorCode.EMBED_UNSUPPORTED, "does not support embeddings"),
        (
            RerankRequest("q", ["d"]),
            "rerank",
            ErrorCode.RERANK_UNSUPPORTED,
            "does not support reranking",
        ),
    ],
)
def test_what_one_missing_capability_refuses(
    request_: AnyRequest, lacking: str, code: ErrorCode, message: str
) -> None:
    assert missing(request_, ALL) is None
    refusal = missing(request_, msgspec.structs.replace(ALL, **{lacking: False}))
    assert refusal is not None
    assert (refusal.code, refusal.message) == (code, message)


@pytest.mark.parametrize(
    "request_",
    [
        asking(),
        asking(thinking=True),  # a wish, not a constraint
        asking(tools=[TOOL], tool_choice="auto"),
    ],
)
def test_what_a_plain_backend_may_get(request_: GenerateRequest) -> None:
    assert missing(request_, Capabilities(tools=True)) is None


@pytest.mark.parametrize("can", [ALL, Capabilities(tools=True)], ids=["all", "plain"])
@pytest.mark.parametrize("block", [Image("i"), Audio("a"), Video("v"), ToolResult("d", [])])
def test_results_of_tools_are_text_whatever_the_backend_takes(
    block: Block, can: Capabilities
) -> None:
    refusal = missing(asking(ToolResult("c", [Text("x"), block])), can)
    assert refusal is not None
    assert refusal.code is INVALID
    assert "`messages[0].content[1].content[1]`" in refusal.message
    assert missing(asking(ToolResult("c", [Text("x"), Text("y")])), can) is None


def test_video_is_never_taken() -> None:
    refusal = missing(asking(Video("v")), ALL)
    assert refusal is not None
    assert (refusal.code, refusal.message) == (UNSUPPORTED, "does not support video")


def test_audio_at_another_rate_names_both() -> None:
    at_48k = msgspec.structs.replace(ALL, audio_sample_rate=48_000)
    refusal = missing(asking(Audio("a")), at_48k)
    assert refusal is not None
    assert refusal.code is INVALID
    assert refusal.message == "takes audio at 48000 Hz, not at 16000 Hz"
    assert missing(asking(Audio("a")), msgspec.structs.replace(ALL, audio_sample_rate=16_000)) is (
        None
    )
