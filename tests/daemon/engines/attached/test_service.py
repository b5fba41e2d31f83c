"""What the answers of attached services mean: a fake Ollama, and any server of the API."""

import gc
import json
import os
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from inferd_daemon.engines.attached.ollama import OllamaService, same_model
from inferd_daemon.engines.attached.openai_service import OpenAIService
from inferd_daemon.engines.attached.service import AttachedService
from inferd_daemon.engines.attached.spec import normalise_attach
from inferd_daemon.engines.base import EngineFailure, Health
from inferd_daemon.engines.failures import Cause
from inferd_daemon.engines.llama_server.address import base_url, headers, health_url
from tests.support.fake_ollama import FakeOllama, fake_ollama
from tests.support.scripted_upstream import Close, Script, serve, whole

NOBODY = "http://127.0.0.1:9"
"""The discard port: nothing listens there."""


def service(
    root_url: str,
    kind: str = "ollama",
    environment: Mapping[str, str] | None = None,
    **fields: Any,  # noqa: ANN401 (of an attach spec)
) -> AttachedService:
    if kind == "ollama":
        fields.setdefault("model_identity", "qwen3")
    spec = normalise_attach({"root_url": root_url, "kind": kind, **fields})
    made = OllamaService if kind == "ollama" else OpenAIService
    return made("it", spec, environment=environment or {})


async def health(asked: AttachedService) -> Health:
    with trio.fail_after(30):
        await asked.open()
        return await asked.look()


def words(asked: AttachedService) -> str:
    assert asked.sight is not None
    return asked.sight.words


# -- ollama ------------------------------------------------------------------------------------


async def test_a_loaded_model_is_healthy_and_known() -> None:
    installed = {"qwen3:latest": ["completion", "tools"]}
    with fake_ollama(installed=installed, running={"qwen3:latest": 8192}) as fake:
        ollama = service(fake.root_url + "/v1/")
        assert await health(ollama) is Health.HEALTHY
        facts = await ollama.learn()
    assert (facts.model, facts.n_ctx) == ("qwen3", 8192)
    assert facts.capabilities == {
        "streaming": True,
        "tool_calling": True,
        "vision": False,
        "audio": False,
        "embeddings": False,
    }
    assert base_url(ollama.endpoint) == fake.root_url + "/v1"
    assert health_url(ollama.endpoint) == fake.root_url + "/api/version"
    assert set(fake.paths()) == {"/api/version", "/api/ps", "/api/show"}


async def test_an_installed_model_that_is_cold_is_degraded_until_it_is_loaded() -> None:
    with fake_ollama(installed={"qwen3:latest": None}) as fake:
        ollama = service(fake.root_url)
        assert await health(ollama) is Health.DEGRADED
        assert "not loaded" in words(ollama)
        assert (await ollama.learn()).capabilities == {}  # this version does not tell
        fake.running["qwen3:latest"] = 4096
        assert await ollama.look() is Health.HEALTHY
        fake.running.clear()
        del fake.installed["qwen3:latest"]
        assert await ollama.look() is Health.NO_ANSWER


async def test_a_model_that_it_does_not_know_is_the_callers_mistake() -> None:
    with fake_ollama(installed={"qwen3:8b": ["completion"]}) as fake:
        ollama = service(fake.root_url)
        assert await health(ollama) is Health.NO_ANSWER
    assert ollama.sight is not None
    assert ollama.sight.settled
    assert ollama.sight.cause is Cause.SERVICE_LACKS_MODEL
    assert "does not know 'qwen3'" in words(ollama)


@pytest.mark.parametrize("kind", ["ollama", "openai"])
async def test_nobody_there(kind: str) -> None:
    asked = service(NOBODY, kind)
    assert await health(asked) is Health.NO_ANSWER
    assert asked.sight is not None
    assert not asked.sight.settled  # it may yet be started
    assert NOBODY in words(asked)


@pytest.mark.parametrize("kind", ["ollama", "openai"])
async def test_without_descriptors_nothing_is_said_of_the_service(kind: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with fake_ollama(installed={"qwen3:latest": None}) as fake:
        asked = service(fake.root_url, kind)
        await asked.open()
        # Not 0: poll() itself refuses more descriptors than the limit, in the fake's thread too.
        gc.collect()  # what is left of other tests lets go of its descriptors now
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        fillers = [os.open(os.devnull, os.O_RDONLY) for _ in range(highest)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(fillers) + 1, hard))
        try:
            assert await asked.look() is Health.UNSEEN
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for filler in fillers:
                os.close(filler)
        assert await asked.look() in (Health.DEGRADED, Health.HEALTHY)


@pytest.mark.parametrize(
    ("broken", "settled"), [(500, False), (503, False), (404, True), (401, True), (403, True)]
)
async def test_an_ollama_that_answers_wrongly(broken: int, *, settled: bool) -> None:
    with fake_ollama(broken=broken) as fake:
        ollama = service(fake.root_url)
        assert await health(ollama) is Health.NO_ANSWER
    assert ollama.sight is not None
    assert ollama.sight.settled is settled
    assert str(broken) in words(ollama)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("qwen3", "qwen3:latest", True),
        ("Qwen3:8B", "qwen3:8b", True),
        ("registry.ollama.ai/library/qwen3", "qwen3:latest", True),
        ("library/qwen3:8b", "qwen3:8b", True),
        ("hf.co/org/model", "hf.co/org/model:latest", True),
        ("localhost:5000/org/model", "localhost:5000/org/model:latest", True),
        ("qwen3", "qwen3:8b", False),
        ("org/qwen3", "qwen3", False),
    ],
)
def test_names_of_one_model(one: str, other: str, *, same: bool) -> None:
    assert same_model(one, other) is same


# -- the key -----------------------------------------------------------------------------------


async def _with_key(fake: FakeOllama, environment: Mapping[str, str], **fields: Any) -> Health:  # noqa: ANN401
    ollama = service(fake.root_url, environment=environment, **fields)
    found = await health(ollama)
    assert "sk-1" not in repr(ollama.endpoint)
    assert ollama.endpoint.key is None  # the journal would keep it
    if found is not Health.NO_ANSWER:
        assert headers(ollama.endpoint)["Authorization"] == "Bearer sk-1"
    return found


async def test_the_key_by_value_file_and_variable(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("# ours\nsk-1\n")
    with fake_ollama(installed={"qwen3:latest": None}, key="sk-1") as fake:
        assert await _with_key(fake, {}) is Health.NO_ANSWER
        assert await _with_key(fake, {}, api_key="wrong") is Health.NO_ANSWER
        assert await _with_key(fake, {}, api_key="sk-1") is Health.DEGRADED
        assert await _with_key(fake, {}, api_key_file=str(path)) is Health.DEGRADED
        assert await _with_key(fake, {"K": "sk-1"}, api_key_env="K") is Health.DEGRADED
        assert await _with_key(fake, {}, headers={"authorization": "Bearer sk-1"}) is (
            Health.DEGRADED
        )


async def test_a_key_that_is_changed_in_its_file_counts_when_it_is_opened_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "key"
    path.write_text("old")
    with fake_ollama(installed={"qwen3:latest": None}, key="new") as fake:
        ollama = service(fake.root_url, api_key_file=str(path))
        assert await health(ollama) is Health.NO_ANSWER
        path.write_text("new")
        assert await health(ollama) is Health.DEGRADED


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"api_key_env": "MISSING"}, "api_key_env"),
        ({"api_key_env": "TWO_LINES"}, "api_key_env"),
        ({"api_key_file": "/nowhere/key"}, "api_key_file"),
    ],
)
async def test_a_key_that_is_not_where_it_should_be(fields: dict[str, Any], named: str) -> None:
    asked = service(NOBODY, environment={"TWO_LINES": "sk-1\nsk-2"}, **fields)
    with pytest.raises(EngineFailure, match=named) as caught:
        await asked.open()
    assert "sk-1" not in str(caught.value)


async def test_headers_are_sent() -> None:
    with fake_ollama(installed={"qwen3:latest": None}) as fake:
        assert await health(service(fake.root_url, headers={"X-Org": "o"})) is Health.DEGRADED
        assert all(sent["x-org"] == "o" for _, sent in fake.seen)


# -- openai ------------------------------------------------------------------------------------


def reply(status: int, body: object) -> Script:
    return [whole(status, body if isinstance(body, bytes) else json.dumps(body).encode())]


def listing(*models: dict[str, Any]) -> Script:
    return reply(200, {"object": "list", "data": list(models)})


async def _look_openai(tmp_path: Path, script: Script, **fields: Any) -> AttachedService:  # noqa: ANN401
    async with serve(tmp_path, script, tcp=True) as upstream:
        asked = service(upstream.url, "openai", **fields)
        await health(asked)
        assert upstream.requests[0].path == "/v1/models"
    return asked


@pytest.mark.parametrize(
    ("script", "expected", "settled"),
    [
        (listing({"id": "m"}), Health.HEALTHY, False),
        (listing(), Health.LOADING, False),
        (reply(503, b"Loading"), Health.LOADING, False),
        (reply(429, b""), Health.LOADING, False),
        (reply(404, b""), Health.NO_ANSWER, True),
        (reply(401, b""), Health.NO_ANSWER, True),
        (reply(200, b"<html>hello</html>"), Health.NO_ANSWER, True),
        (reply(200, {"data": "none"}), Health.NO_ANSWER, True),
        (reply(302, b""), Health.LOADING, False),
        ([b"garbage\r\n\r\n", Close()], Health.NO_ANSWER, False),
    ],
)
async def test_the_list_of_models_means(
    tmp_path: Path, script: Script, expected: Health, *, settled: bool
) -> None:
    asked = await _look_openai(tmp_path, script)
    assert asked.sight is not None
    assert (asked.sight.health, asked.sight.settled) == (expected, settled)


@pytest.mark.parametrize(
    ("identity", "models", "model", "n_ctx"),
    [
        (None, [{"id": "a"}, {"id": "b"}], "a", None),
        ("b", [{"id": "a"}, {"id": "b", "max_model_len": 99}], "b", 99),
        ("b", [{"id": "b", "meta": {"n_ctx": 77, "size": 1}}], "b", 77),
        ("an alias of its own", [{"id": "a", "max_model_len": 99}], "an alias of its own", None),
    ],
)
async def test_which_model(
    tmp_path: Path,
    identity: str | None,
    models: Sequence[dict[str, Any]],
    model: str,
    n_ctx: int | None,
) -> None:
    asked = await _look_openai(tmp_path, listing(*models), model_identity=identity)
    facts = await asked.learn()
    assert (facts.model, facts.n_ctx, facts.capabilities) == (model, n_ctx, {})


@pytest.mark.parametrize("kind", ["ollama", "openai"])
@pytest.mark.parametrize("body", [b'{"data":[{"id":"caf\xe9"}]}', b'{"x":' + b"[" * 100_000, b"["])
async def test_whatever_it_answers_is_a_look_and_no_fault_of_ours(
    tmp_path: Path, kind: str, body: bytes
) -> None:
    script: Script = [whole(200, body)]
    async with serve(tmp_path, *([script] * 4), tcp=True) as upstream:
        asked = service(upstream.url, kind)
        assert await health(asked) in (Health.NO_ANSWER, Health.DEGRADED)
        assert words(asked)
