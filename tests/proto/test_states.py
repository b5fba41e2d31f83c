"""The table of states: closed, reachable, and with one way to end."""

import pytest

from inferd_proto import TRANSITIONS, LocalProtocolError, Signal, State, diagram, step


def test_every_state_is_reached_and_every_state_but_the_last_is_left() -> None:
    assert {State.IDLE, *TRANSITIONS.values()} == set(State)
    assert {state for state, _ in TRANSITIONS} == set(State) - {State.ENDED}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("signal", Signal)
def test_what_the_table_lacks_is_our_own_fault(state: State, signal: Signal) -> None:
    if (state, signal) in TRANSITIONS:
        assert step(state, signal) is TRANSITIONS[state, signal]
    else:
        with pytest.raises(LocalProtocolError, match=f"a request that is {state!r} takes no"):
            step(state, signal)


def test_a_terminal_answer_ends_every_request_that_has_begun() -> None:
    begun = set(State) - {State.IDLE, State.ENDED}
    assert {state for state, signal in TRANSITIONS if signal is Signal.TERMINAL} == begun
    assert all(
        (signal is Signal.TERMINAL) == (after is State.ENDED)
        for (_, signal), after in TRANSITIONS.items()
    )


def test_the_diagram_has_one_arrow_a_row() -> None:
    assert diagram().count("-->") == len(TRANSITIONS) + 2
