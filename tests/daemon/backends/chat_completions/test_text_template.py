"""Chunks read by what stands around their text: as the decoder reads them, or not at all."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.backends.base import TextDeltas
from inferd_daemon.backends.chat_completions import ChatAnswer, Expectations, Redactor
from inferd_daemon.backends.chat_completions.chunks import Chunk, decode_chunk
from inferd_daemon.backends.chat_completions.text_template import MAX_MISSES, TextTemplate


def payload(text: str, **fields: object) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return json.dumps({"id": "x", "choices": [choice], **fields}).encode()


def learned(like: bytes) -> TextTemplate:
    template = TextTemplate()
    chunk = decode_chunk(like)
    assert chunk is not None
    assert template.learn(like, chunk)
    return template


def texts_of(payloads: list[bytes]) -> list[str | None]:
    chunks = [decode_chunk(one) for one in payloads]
    return [_text(chunk) for chunk in chunks]


def _text(chunk: Chunk | None) -> str | None:
    if chunk is None or not chunk.choices or chunk.choices[0].delta is None:
        return None
    return chunk.choices[0].delta.content


def test_a_run_is_read_up_to_what_is_different() -> None:
    run = [payload(text) for text in ("a", "", "é\\n", "\n\t\x7f", "tok ")]
    template = learned(payload("like"))
    assert template.read(run) == ["a", "", "é\\n", "\n\t\x7f", "tok "]
    assert template.read([*run, payload("b", created=2), payload("c")]) == template.read(run)
    assert template.read([payload("a"), payload('say "b"'), payload("c")]) == ["a"]


@pytest.mark.parametrize(
    "unlike",
    [
        payload("a", id="y"),
        payload("a", usage={"prompt_tokens": 1}),
        payload('"'),
        payload("\\")[:-30],
        payload("a") + b"\n" + payload("b"),
        payload("a").replace(b'"a"', b'"a","refusal":"b"'),
        payload("a").replace(b'"a"', b'"a\\"'),
        b"{}",
        b"",
    ],
)
def test_what_is_unlike_is_not_read(unlike: bytes) -> None:
    template = learned(payload("like"))
    assert template.read([unlike, payload("a")]) == []
    assert template.read([payload("a"), unlike]) == ["a"]
    assert template.read([payload("a"), unlike, payload("b")]) == ["a"]


@pytest.mark.parametrize("body", [b"\xff", b"a\nb", b"\\x"])
def test_what_is_no_json_spoils_the_run_and_is_left_to_the_decoder(body: bytes) -> None:
    broken = payload("a").replace(b'"a"', b'"%b"' % body)
    assert learned(payload("like")).read([payload("a"), broken]) == []


@pytest.mark.parametrize(
    "useless",
    [
        payload(""),
        payload("é"),
        payload('"'),
        payload("x"),  # stands twice: as the id too
        payload("a", usage={"prompt_tokens": 1}),
        payload("a", error="no"),
        b'{"choices":[{"delta":{"reasoning":"a"}}]}',
        b'{"choices":[{"delta":{"content":"a","tool_calls":[{"index":0}]}}]}',
        b'{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}',
        b'{"choices":[{"delta":{"content":"a","content":"\\u0061"}}]}',
        b'{"choices":[{"delta":{"content":"\\u0061"}}],"model":"a"}',
    ],
)
def test_what_proves_nothing_is_not_learned(useless: bytes) -> None:
    chunk = decode_chunk(useless)
    assert chunk is not None
    assert not TextTemplate().learn(useless, chunk)


def test_a_stream_of_other_chunks_is_given_up() -> None:
    template = TextTemplate()
    for number in range(MAX_MISSES):
        assert not template.given_up
        like = payload("a", number=number)
        chunk = decode_chunk(like)
        assert chunk is not None
        template.learn(like, chunk)
        assert template.read([payload("a", number=-1)]) == []
    assert template.given_up


BODIES = st.text(st.sampled_from('ab"\\\n,:{}é') | st.characters(exclude_categories=["Cs"]))


@given(st.lists(BODIES, min_size=1, max_size=20), st.booleans())
def test_every_text_is_as_the_decoder_reads_it(texts: list[str], escaped: bool) -> None:
    run = [payload(text) for text in texts]
    if not escaped:
        run = [msgspec.json.encode(json.loads(one)) for one in run]
    like = payload("like") if escaped else msgspec.json.encode(json.loads(payload("like")))
    read = learned(like).read(run)
    assert read == texts[: len(read)]
    if not any('"' in text or "\\" in text for text in texts):
        assert read == texts


@given(st.lists(st.binary(max_size=12), min_size=1, max_size=8))
def test_whatever_stands_between_is_read_as_the_decoder_does(bodies: list[bytes]) -> None:
    before, _, after = payload("like").partition(b"like")
    run = [before + body + after for body in bodies]
    read = learned(payload("like")).read(run)
    assert read == texts_of(run)[: len(read)]


@given(st.lists(BODIES, min_size=30, max_size=60), st.integers(0, 60))
def test_a_long_batch_gives_what_single_chunks_give(texts: list[str], change_at: int) -> None:
    events = [
        b"data: " + payload(text, created=int(number >= change_at)) + b"\n\n"
        for number, text in enumerate(texts)
    ]
    at_once, apart = ChatAnswer(Expectations(), Redactor([])), []
    one_by_one = ChatAnswer(Expectations(), Redactor([]))
    (batch,) = at_once.feed(b"".join(events)) or [TextDeltas([])]
    for event in events:
        apart += one_by_one.feed(event)
    assert isinstance(batch, TextDeltas)
    assert batch.deltas == [text for one in apart if isinstance(one, TextDeltas) for text in one[0]]
    assert at_once.payloads == one_by_one.payloads == len(texts)
