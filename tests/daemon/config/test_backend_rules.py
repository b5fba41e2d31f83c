"""What a backend's keys must be: each mistake at its line, and none hides another."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_daemon.config import ConfigError, parse_config, parse_draft
from inferd_daemon.config.backend_rules import base_url_mistake

REMOTE = '[backends.a]\nkind = "openai_compat"\n'
LOCAL = '[backends.a]\nkind = "libllama"\nmodel = "/m.gguf"\n'
FORM = "base_url: must be http://host or https://host, with a port if needed"


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    return [str(mistake) for mistake in caught.value.mistakes]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (REMOTE + 'base_url = "ftp://x"', f"line 3: backends.a.{FORM}"),
        (REMOTE + 'base_url = ""', f"line 3: backends.a.{FORM}"),
        (REMOTE + 'base_url = "http://x:port"', f"line 3: backends.a.{FORM}"),
        (REMOTE + 'base_url = "http://[::1"', f"line 3: backends.a.{FORM}"),
        (
            REMOTE + 'base_url = "http://gpu..lan:8000"',
            "line 3: backends.a.base_url: must name a host that can be looked up: "
            "an address, or a name in ASCII",
        ),
        (REMOTE + 'base_url = "http://x\\ny"', f"line 3: backends.a.{FORM}"),
        (
            REMOTE + 'base_url = "http://u:secret@x"',
            "line 3: backends.a.base_url: must hold no user or password; use api_key_file",
        ),
        (
            REMOTE + 'base_url = "http://x/y/v1"',
            "line 3: backends.a.base_url: must end after the host; `/v1/…` is appended",
        ),
        (
            REMOTE + 'base_url = "http://x/api/v1"',
            "line 3: backends.a.base_url: must end after the host; `/v1/…` is appended; or set"
            ' upstream = "openrouter"',
        ),
        (
            REMOTE + 'upstream = "openruter"',
            "line 3: backends.a.upstream: Invalid enum value 'openruter'; one of generic,"
            " llama_server, vllm, sglang, lmstudio, localai, ollama, openai, openrouter",
        ),
        (
            LOCAL + 'gpu_layers = "some"',
            "line 4: backends.a.gpu_layers: Invalid enum value 'some'; one of auto, all",
        ),
        (
            REMOTE + 'api_key = "secret"\napi_key_file = "/k"',
            "line 4: backends.a.api_key_file: excludes api_key; give one of them",
        ),
        (
            REMOTE + 'api_key_file = "/k"\napi_key_env = "KEY"',
            "line 4: backends.a.api_key_env: excludes api_key_file; give one of them",
        ),
        (
            REMOTE + 'api_key = "secret\\n"',
            "line 3: backends.a.api_key: must be one line of ASCII",
        ),
        (
            REMOTE + 'headers = { "a b" = "secret" }',
            "line 3: backends.a.headers.a b: is no name of a header that can be sent",
        ),
        (
            REMOTE + '[backends.a.headers]\nx = "y"\nz = "secret\\r\\nb: c"',
            "line 5: backends.a.headers.z: its value must be one line of ASCII without spaces"
            " around it",
        ),
        (
            REMOTE + 'headers = { Content-Length = "3" }',
            "line 3: backends.a.headers.Content-Length: is the transport's own",
        ),
        (REMOTE + 'model = ""', "line 3: backends.a.model: is empty; leave it out instead"),
        (REMOTE + 'uds = " "', "line 3: backends.a.uds: is empty; leave it out instead"),
        (
            REMOTE + 'tls_ca_file = "/ca"',
            "line 3: backends.a.tls_ca_file: needs a base_url with https://",
        ),
        (
            REMOTE + "tools = false\ntool_choice = true",
            "line 4: backends.a.tool_choice: contradicts `tools = false`",
        ),
        (
            REMOTE + "audio_sample_rate = 16000",
            "line 3: backends.a.audio_sample_rate: needs `audio = true`",
        ),
        (
            '[backends.a]\nkind = "libllama"\nmodel = ""',
            "line 3: backends.a.model: is empty; leave it out instead",
        ),
        (
            LOCAL + "embeddings = true\nreranking = true",
            "line 4: backends.a.embeddings: contradicts `reranking`; one worker does one of them",
        ),
        (
            LOCAL + 'reranking = true\npooling = "mean"',
            "line 5: backends.a.pooling: 'mean' contradicts `reranking`, which needs rank",
        ),
        (
            LOCAL + 'embeddings = true\npooling = "rank"',
            "line 5: backends.a.pooling: 'rank' contradicts `embeddings`; ask for `reranking`",
        ),
    ],
)
def test_each_rule(text: str, said: str) -> None:
    assert mistakes(text) == [said]
    assert "secret" not in said


def test_what_is_right_breaks_no_rule() -> None:
    parse_config(
        REMOTE
        + 'base_url = "https://[::1]:8080/v1/"\ntls_ca_file = "/ca"\napi_key = "k"\nmodel = "m"\n'
        + 'headers = { X-Team = "blue and green", empty = "" }\n'
        + "tools = true\ntool_choice = true\naudio = true\naudio_sample_rate = 24000\n"
        + LOCAL.replace(".a]", ".b]")
        + 'reranking = true\npooling = "rank"\n'
    )


def test_no_mistake_hides_another() -> None:
    """Shapes, rules and names are told at once, in the order of the file."""
    assert mistakes("""\
default_route = "none"
[backends.a]
kind = "openai_compat"
base_url = "ftp://x"
slots = 0
api_key = 3
[backends.b]
kind = "mokc"
[routes.r]
backends = ["a", "c", ["b", "b", "d"], 4]
queue_depth = -1
aliases = ["r", 7]
[routes.s]
backends = "a"
aliases = ["r"]
""") == [
        "line 1: default_route: no route 'none'; there is r, s",
        f"line 4: backends.a.{FORM}",
        "line 5: backends.a.slots: Expected `int` >= 1",
        "line 6: backends.a.api_key: Expected `str | null`, got `int`",
        "line 8: backends.b.kind: 'mokc' is none of mock, libllama, llama_server, "
        "openai_compat, agent",
        "line 10: routes.r.backends: Expected `str | array`, got `int` (at [3])",
        "line 10: routes.r.backends[1]: no backend 'c'; there is a, b",
        "line 10: routes.r.backends[2]: 'b' is named already",
        "line 10: routes.r.backends[2]: no backend 'd'; there is a, b",
        "line 11: routes.r.queue_depth: Expected `int` >= 0",
        "line 12: routes.r.aliases: Expected `str`, got `int` (at [1])",
        "line 12: routes.r.aliases: 'r' is a route already",
        "line 14: routes.s.backends: Expected `array`, got `str`",
        "line 15: routes.s.aliases: 'r' is a route already",
    ]


def test_tables_of_another_shape_are_told_once() -> None:
    assert mistakes('default_route = "a"\nroutes = 3\nbackends = [1]') == [
        "line 2: routes: must be a table, not a number",
        "line 3: backends: must be a table, not a list",
    ]


def test_what_is_right_may_be_looked_at_beside_what_is_not() -> None:
    draft = parse_draft("""\
[daemon]
socket_group = "g"
[backends.good]
kind = "mock"
[backends.ruled_out]
kind = "openai_compat"
base_url = "ftp://x"
[backends.shapeless]
kind = "mock"
slots = "many"
[routes.r]
backends = ["nothing"]
""")
    assert draft.sound.daemon.socket_group == "g"
    assert list(draft.sound.backends) == ["good"]
    with pytest.raises(ConfigError) as caught:
        draft.finish([(("backends", "good", "slots"), "more"), (("daemon", "socket_group"), "no")])
    assert [str(mistake) for mistake in caught.value.mistakes][:2] == [
        "line 2: daemon.socket_group: no",
        "line 3: backends.good.slots: more",
    ]
    assert len(caught.value.mistakes) == 5


URL_LIKE = st.text(alphabet='ahtps:/[]@.1%?# "\\^`{|}<>\n_-~v', max_size=20)


@given(st.one_of(URL_LIKE, URL_LIKE.map("http://".__add__), st.text()))
def test_what_passes_is_a_url_to_the_client_too(text: str) -> None:
    if base_url_mistake(text) is None and text.isascii():
        url = httpx.URL(text)
        assert url.scheme in ("http", "https")
        assert url.host
        assert not url.userinfo
        assert not url.query
        assert "%" not in url.host


AGENTS = """\
[backends.m]
kind = "mock"
[backends.a]
kind = "agent"
{table}
[routes.m]
backends = ["m"]
aliases = ["local"]
[routes.agents]
backends = [["a", "m"]]
{agents}
"""


@pytest.mark.parametrize(
    ("table", "agents", "told"),
    [
        ('agent = "claude"', "", ["backends.a.model: is missing; or give `upstream`"]),
        ('model = "opus"', "", ["backends.a.agent: is missing"]),
        ('agent = "clod"\nmodel = "m"', "", ["backends.a.agent: Invalid enum value 'clod'"]),
        ('agent = "claude"\nmodel = ""', "", ["backends.a.model: is empty"]),
        ('agent = "claude"\nupstream = "n"', "", ["backends.a.upstream: no route 'n'"]),
        (
            'agent = "claude"\nupstream = "agents"',
            "",
            ["backends.a.upstream: route 'agents' is answered by an agent itself"],
        ),
        (
            'agent = "amp"\nmodel = "m"',
            '[agents.clod]\n[agents.amp]\nmax_runs = 0\nenvironment = ["A=B"]',
            [
                "agents.clod: Invalid enum value 'clod'",
                "agents.amp.max_runs: Expected `int` >= 1",
                "agents.amp.environment: Expected `str` matching regex",
            ],
        ),
    ],
)
def test_mistakes_about_agents(table: str, agents: str, told: list[str]) -> None:
    found = mistakes(AGENTS.format(table=table, agents=agents))
    assert len(found) == len(told), found
    for line, expected in zip(found, told, strict=True):
        assert expected in line


def test_agents_on_their_own_login_and_on_a_route() -> None:
    text = AGENTS.format(table='agent = "claude"\nmodel = "opus"', agents="[agents.claude]")
    assert parse_config(text).agents["claude"].max_runs == 4
    text = AGENTS.format(table='agent = "codex"\nupstream = "local"', agents="")
    assert parse_config(text).agents == {}
