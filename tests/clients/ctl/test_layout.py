"""Tables on terminals of any width: nothing is cropped, and what names a row is never broken."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from inferd_client import AgentStatus, Lease, Runtime
from inferd_client.ctl import terminal
from inferd_client.ctl.agent_table import agents_table
from inferd_client.ctl.layout import fit, natural_width, stacked
from inferd_client.ctl.render import routes_table
from inferd_client.ctl.tables import leases_table, new_row, new_table, runtimes_table
from inferd_client.status import to_routes
from tests.clients.ctl.running import Ctl
from tests.clients.ctl.test_routes_table import CHAT
from tests.clients.lease_records import LEASE, RUNTIMES
from tests.clients.test_agents import AGENTS

if TYPE_CHECKING:
    from rich.table import Table

REF = "lease-EVjmRWdoy3T5a-W2bgto5D0e"
LONG = "Qwen3-Coder-30B-A3B-Instruct-Q4_K_M"
SOCKET = "unix:/run/user/1000/inferd/runtimes/qwen3-8b-00112233/server.sock"


def leases() -> "Table":
    fields = LEASE | {
        "lease_ref": REF,
        "pid": 4_194_000,
        "age_ms": 3_723_000,
        "left_ms": 86 * 10**6,
    }
    held = [fields, fields | {"owner_ref": "the nightly job of somebody", "bind": "none"}]
    return leases_table([msgspec.convert(one, Lease) for one in held], [])


def runtimes(name: str) -> "Table":
    long = {"name": name, "endpoint": SOCKET}
    return runtimes_table([msgspec.convert(one | long, Runtime) for one in RUNTIMES], [])


def routes(name: str) -> "Table":
    return routes_table(to_routes({"routes": [CHAT | {"name": name, "aliases": [LONG, "gpt-4o"]}]}))


def agents() -> "Table":
    listed = AGENTS["agents"]
    assert isinstance(listed, list)
    return agents_table([msgspec.convert(one, AgentStatus) for one in listed])


TABLES: dict[str, Callable[[], "Table"]] = {
    "leases": leases,
    "runtimes": lambda: runtimes("qwen3"),
    "runtimes with long names": lambda: runtimes(LONG),
    "routes": lambda: routes("chat"),
    "routes with long names": lambda: routes(LONG),
    "agents": agents,
}


def shown(table: "Table", width: int) -> list[str]:
    """The lines of `table` on a terminal `width` wide."""
    if not fit(table, width):
        return stacked(table, width)
    out = io.StringIO()
    Console(width=width, file=out, markup=False, emoji=False).print(table)
    return out.getvalue().splitlines()


def cells(table: "Table") -> list[list[str]]:
    return [[str(cell) for cell in column.cells] for column in table.columns]


def letters(text: str) -> list[str]:
    """Without what only lays out."""
    return sorted(text.translate(dict.fromkeys(map(ord, " \n─,"))))


@pytest.mark.parametrize("width", [250, 120, 100, 80, 60, 40])
@pytest.mark.parametrize("name", TABLES)
def test_nothing_is_cropped(name: str, width: int) -> None:
    table = TABLES[name]()
    names, *others = cells(table)
    lines = shown(table, width)
    for one in names:
        assert any(one in line.split() for line in lines), lines
    told = [*names, *(cell for column in others for cell in column)]
    if any("─" in line for line in lines):
        headings = "".join(str(column.header) for column in table.columns)
        assert letters("".join(lines)) == letters("".join(told) + headings)
        assert max(map(cell_len, lines)) <= width
    else:
        for line in (line for cell in told for line in cell.splitlines()):
            assert any(line in one for one in lines)
        widest = max(len(line) for cell in told for line in cell.splitlines()) + len("  BACKENDS ")
        assert max(map(cell_len, lines)) <= max(width, widest)


def test_eighty_columns_hold_a_table_of_short_names() -> None:
    for name in ("runtimes", "routes", "agents"):
        assert fit(TABLES[name](), 80), name


def test_a_row_that_does_not_fit_stands_below_its_name() -> None:
    assert shown(leases(), 80) == [
        REF,
        "  RUNTIME qwen3-8b-00112233  OWNER me  UID 1000  PID 4194000  AGE 1 h 2 min",
        "  LEFT 23 h 53 min  BOUND to its connection",
        REF,
        "  RUNTIME qwen3-8b-00112233  OWNER the nightly job of somebody  UID 1000",
        "  PID 4194000  AGE 1 h 2 min  LEFT 23 h 53 min",
    ]


@given(
    rows=st.lists(st.tuples(*[st.text("ab 世[]:\\", max_size=30)] * 3), min_size=1, max_size=4),
    width=st.integers(10, 100),
)
def test_a_table_that_fits_is_no_wider(rows: list[tuple[str, ...]], width: int) -> None:
    table = new_table("ONE", "TWO", "THREE")
    for row in rows:
        new_row(table, *row)
    wide = natural_width(table)
    out = io.StringIO()
    if fit(table, width):
        Console(width=width, file=out, markup=False, emoji=False).print(table)
        drawn = out.getvalue()
        assert letters(drawn) == letters("".join(map("".join, rows)) + "ONETWOTHREE")
        assert max(map(cell_len, drawn.splitlines())) <= width
    else:
        assert wide > width


@pytest.mark.parametrize("columns", ["80", "60"])
def test_what_is_printed_can_be_copied(
    ctl: Ctl, monkeypatch: pytest.MonkeyPatch, columns: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    terminal.print_table(leases())
    assert capsys.readouterr().out.splitlines().count(REF) == 2
    assert "lease-abc" in ctl("lease", "ls").out
    for name in ("qwen", "tiny", "bad"):
        assert name in ctl("ps").out.split()


def test_a_pipe_has_whole_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    owner = "somebody " * 60 + "[red]:bug:\\"  # none of it means anything
    held = msgspec.convert(LEASE | {"lease_ref": REF, "owner_ref": owner}, Lease)
    terminal.print_table(leases_table([held], []))
    assert sum(REF in line and owner in line for line in capsys.readouterr().out.splitlines()) == 1
