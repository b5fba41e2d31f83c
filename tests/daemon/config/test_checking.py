"""The check of plain data against structs, whatever the data."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferd_daemon.config import Config
from inferd_daemon.config.checking import Mistake, check, dotted

KEYS = st.sampled_from(
    ["daemon", "backends", "routes", "a", "kind", "mock", "socket", "aliases", "headers", ""]
)
SCALARS = st.one_of(
    st.text(max_size=5), st.integers(), st.floats(), st.booleans(), st.dates(), st.just("mock")
)
PLAIN = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(KEYS, PLAIN, max_size=4))
def test_any_table_is_a_configuration_or_has_mistakes(data: dict[str, object]) -> None:
    config, found = check(data, Config)
    assert (config is None) == bool(found)
    for path, message in found:
        assert message
        assert str(Mistake(dotted(path), message, 1)).startswith("line 1: ")


def test_paths_read_as_people_write_them() -> None:
    assert dotted(("routes", "a", "backends", 0)) == "routes.a.backends[0]"
    assert dotted(()) == ""
    assert str(Mistake("", "is not TOML")) == "is not TOML"
    assert str(Mistake("a.b", "is missing", 3)) == "line 3: a.b: is missing"
