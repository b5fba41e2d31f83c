"""The service behind a configured upstream, as leases attach to it."""

import pytest

from inferd_daemon.config import OpenAICompatConfig
from inferd_daemon.supervision.runtimes.attach_blueprint import configured_service

URL = "http://127.0.0.1:8000"


@pytest.mark.parametrize(("file", "variable"), [("/k", None), (None, "OFFICE_KEY"), (None, None)])
def test_it_is_the_upstream_with_its_key_wherever_that_is(
    file: str | None, variable: str | None
) -> None:
    table = OpenAICompatConfig(
        base_url=f"{URL}/v1",
        model="m",
        headers={"X-T": "b"},
        api_key_file=file,
        api_key_env=variable,
    )
    blueprint = configured_service("office", table, {"OFFICE_KEY": "k"})
    assert blueprint is not None
    spec = blueprint.spec
    assert (spec.root_url, spec.model_identity) == (URL, "m")
    assert {name: value.reveal() for name, value in spec.headers.items()} == {"x-t": "b"}
    assert (spec.api_key_file, spec.api_key_env) == (file, variable)


@pytest.mark.parametrize(
    "table",
    [
        OpenAICompatConfig(uds="/run/s"),
        OpenAICompatConfig(base_url="https://x", tls_ca_file="/ca.pem"),
    ],
)
def test_there_is_none_where_no_spec_says_the_same(table: OpenAICompatConfig) -> None:
    assert configured_service("office", table, {}) is None
