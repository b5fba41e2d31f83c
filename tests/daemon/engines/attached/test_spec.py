"""Attach specs: URLs in one form, mistakes by their field, rights in the key but hidden."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.engines.attached.spec import AttachSpecError, normalise_attach

URL = "http://127.0.0.1:11434"


def _mistakes(raw: dict[str, Any]) -> list[str]:
    with pytest.raises(AttachSpecError) as caught:
        normalise_attach(raw)
    assert caught.value.code == "invalid_request"
    return [name for name, _ in caught.value.mistakes]


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("http://127.0.0.1:11434", URL),
        ("http://127.0.0.1:11434/", URL),
        ("http://127.0.0.1:11434/v1", URL),
        ("http://127.0.0.1:11434/v1/", URL),
        (" HTTP://127.0.0.1:11434 ", URL),
        ("http://LOCALHOST:80/v1", "http://localhost"),
        ("https://localhost:443/llm/v1", "https://localhost/llm"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("http://127.0.0.1/v1/v1", "http://127.0.0.1/v1"),
        ("http://127.0.0.1/v1beta", "http://127.0.0.1/v1beta"),
    ],
)
def test_one_form_of_a_url(url: str, root: str) -> None:
    spec = normalise_attach({"root_url": url})
    assert spec.root_url == root
    assert spec.base_url == f"{root}/v1"
    assert spec.is_local


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ({}, "root_url"),
        ({"root_url": 1}, "root_url"),
        ({"root_url": ""}, "root_url"),
        ({"root_url": "127.0.0.1:11434"}, "root_url"),
        ({"root_url": "ftp://127.0.0.1"}, "root_url"),
        ({"root_url": "http://"}, "root_url"),
        ({"root_url": "http://127.0.0.1:99999"}, "root_url"),
        ({"root_url": "http://127.0.0.1:0"}, "root_url"),
        ({"root_url": "http://[::1"}, "root_url"),
        ({"root_url": "http://[::1%a..b]:9"}, "root_url"),
        ({"root_url": "http://[::1%\u00fc]:9"}, "root_url"),
        ({"root_url": "http://localhost..:9"}, "root_url"),
        ({"root_url": "http://u:p@127.0.0.1"}, "root_url"),
        ({"root_url": "http://127.0.0.1/?a=b"}, "root_url"),
        ({"root_url": "http://127.0.0.1/#a"}, "root_url"),
        ({"root_url": "http://127.0.0.1/a b"}, "root_url"),
        ({"root_url": "http://127.0.0.1/\r\nX: y"}, "root_url"),
        ({"root_url": "https://api.example.org"}, "root_url"),
        ({"root_url": "http://10.0.0.7"}, "root_url"),
        ({"root_url": URL, "kind": "vllm"}, "kind"),
        ({"root_url": URL, "kind": "ollama"}, "model_identity"),
        ({"root_url": URL, "model_identity": " "}, "model_identity"),
        ({"root_url": URL, "api_key": "a b"}, "api_key"),
        ({"root_url": URL, "headers": {"a b": "c"}}, "headers.a b"),
        ({"root_url": URL, "headers": {"X": "a\r\nY: b"}}, "headers.X"),
        ({"root_url": URL, "headers": {"Host": "x"}}, "headers.Host"),
        ({"root_url": URL, "headers": {"X": "1", "x": "2"}}, "headers.x"),
        (
            {"root_url": URL, "headers": {"Authorization": "x"}, "api_key": "k"},
            "headers.Authorization",
        ),
        ({"root_url": URL, "headers": []}, "headers"),
        ({"root_url": URL, "model": "x"}, "model"),
        ({"root_url": URL, "health_interval_ms": 0}, "health_interval_ms"),
    ],
)
def test_a_mistake_names_its_field(raw: dict[str, Any], named: str) -> None:
    assert _mistakes(raw) == [named]


def test_all_mistakes_are_listed() -> None:
    assert set(_mistakes({"root_url": "http://10.0.0.1", "kind": "x"})) == {"root_url", "kind"}


def test_remote_only_where_allowed() -> None:
    spec = normalise_attach({"root_url": "https://api.example.org/v1"}, allow_remote=True)
    assert spec.root_url == "https://api.example.org"
    assert not spec.is_local


def test_what_a_request_bears() -> None:
    spec = normalise_attach({"root_url": URL, "api_key": "sk-1", "headers": {"X-Org": "o"}})
    assert spec.request_headers() == {"authorization": "Bearer sk-1", "x-org": "o"}
    assert normalise_attach({"root_url": URL, "api_key": ""}).request_headers() == {}


def test_secrets_do_not_show() -> None:
    spec = normalise_attach({"root_url": URL, "api_key": "sk-1", "headers": {"x": "hidden-one"}})
    assert "sk-1" not in repr(spec)
    assert "hidden-one" not in repr(spec)
    with pytest.raises(AttachSpecError) as caught:
        normalise_attach({"root_url": URL, "api_key": "sk 1", "headers": {"x": "hid\nden"}})
    assert "sk 1" not in str(caught.value)
    assert "hid" not in str(caught.value)


def test_instance_keys() -> None:
    different: list[dict[str, Any]] = [
        {},
        {"root_url": "http://127.0.0.1:11435"},
        {"kind": "ollama", "model_identity": "m"},
        {"model_identity": "m"},
        {"model_identity": "n"},
        {"api_key": "a"},
        {"api_key": "b"},
        {"headers": {"x": "1"}},
        {"headers": {"x": "2"}},
    ]
    keys = {normalise_attach({"root_url": URL} | raw).instance_key() for raw in different}
    assert len(keys) == len(different)
    alike: list[dict[str, Any]] = [
        {},
        {"root_url": URL + "/v1"},
        {"metadata": {"a": 1}},
        {"ready_timeout_ms": 1},
    ]
    same = {normalise_attach({"root_url": URL} | raw).instance_key() for raw in alike}
    assert len(same) == 1
    by_key = normalise_attach({"root_url": URL, "api_key": "k"})
    by_header = normalise_attach({"root_url": URL, "headers": {"Authorization": "Bearer k"}})
    assert by_key.instance_key() == by_header.instance_key()


@given(
    st.fixed_dictionaries(
        {"root_url": st.sampled_from([URL, URL + "/v1/", "http://localhost/x/"])},
        optional={
            "kind": st.sampled_from(["ollama", "openai"]),
            "model_identity": st.sampled_from(["m", "m:latest"]),
            "api_key": st.sampled_from(["", "k"]),
            "headers": st.dictionaries(st.sampled_from(["X-A", "x-b"]), st.just("v")),
            "metadata": st.dictionaries(st.text(), st.text()),
        },
    )
)
def test_normalising_again_changes_nothing(raw: dict[str, Any]) -> None:
    raw.setdefault("model_identity", "m")
    spec = normalise_attach(raw)
    again = normalise_attach(msgspec.json.decode(msgspec.json.encode(spec.to_json())))
    assert again == spec
    assert again.instance_key() == spec.instance_key()


@given(st.text(max_size=60) | st.from_regex(r"https?://[\[\]:@/?#0-9a-z.%-]{0,30}"))
def test_any_url_is_normal_or_refused(text: str) -> None:
    try:
        spec = normalise_attach({"root_url": text}, allow_remote=True)
    except AttachSpecError:
        return
    again = normalise_attach({"root_url": spec.root_url}, allow_remote=True)
    assert again.root_url.startswith(("http://", "https://"))
    assert "\n" not in again.root_url
