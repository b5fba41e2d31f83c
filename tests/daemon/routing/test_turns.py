"""Turns over time: shares by weight, users before clients, limits, and queues that are long."""

import time
from collections import Counter
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from inferd_daemon.routing.admission import Admission, Entry, Full
from inferd_daemon.routing.places import EXACT_UP_TO, KEPT_S, Places
from inferd_daemon.routing.shares import PeerKey, Share, Shares

ADMITTED, WAITING = Entry.ADMITTED, Entry.WAITING
HOG, ANNA, BERT = 1000, 1001, 1002


class Line:
    """An admission whose tickets are (peer, number)."""

    def __init__(
        self, permits: int = 1, depth: int = 100_000, shares: Shares | None = None
    ) -> None:
        self.admission = Admission(permits, depth, shares)
        self.running: list[tuple[PeerKey, int]] = []
        self._number = 0

    def ask(self, peer: PeerKey, count: int = 1) -> list[object]:
        verdicts: list[object] = []
        for _ in range(count):
            self._number += 1
            ticket = (peer, self._number)
            verdicts.append(self.admission.request(ticket, peer, 0.0))
            if verdicts[-1] == ADMITTED:
                self.running.append(ticket)
        return verdicts

    def end(self, index: int = 0) -> list[PeerKey]:
        """One run ends; whose turn it is then."""
        admitted = self.admission.release(self.running.pop(index), 0.0)
        self.running += admitted  # type: ignore[arg-type]
        return [peer for peer, _ in admitted]  # type: ignore[misc,has-type]

    def next(self, count: int) -> list[PeerKey]:
        """Whose turns the next ones are."""
        return [peer for _ in range(count) for peer in self.end()]


def jain(shares: Iterable[int]) -> float:
    values = list(shares)
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


@given(
    weights=st.dictionaries(
        st.text("abc", min_size=1, max_size=3), st.integers(1, 9), min_size=2, max_size=6
    ),
    rounds=st.integers(2, 8),
)
@settings(deadline=None)
def test_shares_are_the_weights_exactly_after_each_round(
    weights: dict[str, int], rounds: int
) -> None:
    line = Line(shares=Shares(clients={label: Share(weight) for label, weight in weights.items()}))
    line.ask(PeerKey(HOG, "first"))
    for label, weight in weights.items():
        line.ask(PeerKey(ANNA, label), weight * rounds)
    for _ in range(rounds):
        served = Counter(peer.client for peer in line.next(sum(weights.values())))
        assert served == weights


@given(peers=st.integers(2, 12), permits=st.integers(1, 8), served=st.integers(60, 200))
@settings(deadline=None)
def test_equal_peers_get_equal_shares(peers: int, permits: int, served: int) -> None:
    line = Line(permits)
    names = [PeerKey(ANNA, str(number)) for number in range(peers)]
    line.ask(PeerKey(HOG, "first"), permits)
    for name in names:
        line.ask(name, served)
    counts = Counter(line.next(served))
    assert max(counts.values()) - min(counts[name] for name in names) <= 1
    assert jain(counts[name] for name in names) >= 0.98


@given(
    backlog=st.integers(1, 300),
    labels=st.integers(1, 20),
    permits=st.integers(1, 4),
    data=st.data(),
)
@settings(deadline=None, max_examples=50)
def test_inventing_labels_wins_nothing_from_another_user(
    backlog: int, labels: int, permits: int, data: st.DataObject
) -> None:
    """However many requests and labels one user has, another one's request is second in turn."""
    line = Line(permits)
    for number in range(backlog + permits):
        line.ask(PeerKey(HOG, f"label{number % labels}"))
    line.next(data.draw(st.integers(0, backlog)))
    line.ask(PeerKey(ANNA, ""))
    if line.admission.waiting:
        assert PeerKey(ANNA, "") in line.next(2)


def test_users_have_weights_too() -> None:
    line = Line(shares=Shares(uids={ANNA: Share(3)}))
    line.ask(PeerKey(HOG, ""))
    for uid in (ANNA, BERT):
        line.ask(PeerKey(uid, "x"), 40)
        line.ask(PeerKey(uid, "y"), 40)
    served = Counter(line.next(80))
    assert served == {
        PeerKey(ANNA, "x"): 30,
        PeerKey(ANNA, "y"): 30,
        PeerKey(BERT, "x"): 10,
        PeerKey(BERT, "y"): 10,
    }


def test_a_client_at_its_limit_waits_while_others_pass() -> None:
    line = Line(permits=3, shares=Shares(clients={"batch": Share(1, active=1)}))
    batch, chat = PeerKey(ANNA, "batch"), PeerKey(ANNA, "chat")
    assert line.ask(batch, 3) == [ADMITTED, WAITING, WAITING]
    assert line.ask(chat, 3) == [ADMITTED, ADMITTED, WAITING]
    assert line.end(1) == [chat]
    assert line.end(1) == []  # two permits are free, and the batch has its one
    assert line.end(0) == [batch]
    assert (line.admission.active, line.admission.waiting) == (2, 1)


def test_a_user_at_its_limit_waits_whatever_its_labels() -> None:
    line = Line(permits=4, shares=Shares(uids={HOG: Share(1, active=2)}))
    hog = [line.ask(PeerKey(HOG, str(label)))[0] for label in range(5)]
    assert hog == [ADMITTED, ADMITTED, WAITING, WAITING, WAITING]
    assert line.ask(PeerKey(ANNA, "")) == [ADMITTED]
    assert line.end(0) == [PeerKey(HOG, "2")]


def test_a_client_and_a_user_may_queue_so_many() -> None:
    shares = Shares(uids={ANNA: Share(1, queued=3)}, peer=Share(1, queued=2))
    line = Line(shares=shares)
    line.ask(PeerKey(HOG, ""))
    verdicts = line.ask(PeerKey(ANNA, "a"), 3) + line.ask(PeerKey(ANNA, "b"), 2)
    assert [v.whose if isinstance(v, Full) else "" for v in verdicts] == [
        "",
        "",
        "client",
        "",
        "uid",
    ]


def test_the_stricter_of_two_bounds_holds() -> None:
    shares = Shares(
        clients={"a": Share(5, active=9), "b": Share(1, active=1)},
        peer=Share(1, active=2, queued=7),
    )
    assert shares.of_client("a") == Share(5, 2, 7)
    assert shares.of_client("b") == Share(1, 1, 7)
    assert shares.of_client("c") == Share(1, 2, 7)


def test_who_fills_the_queue_shuts_nobody_out() -> None:
    line = Line(depth=8)
    line.ask(PeerKey(HOG, "x"), 9)
    assert isinstance(line.ask(PeerKey(HOG, "x"))[0], Full)
    for label in ("y", "z"):  # two places for clients that have nothing in it
        assert line.ask(PeerKey(HOG, label)) == [WAITING]
        assert isinstance(line.ask(PeerKey(HOG, label))[0], Full)
    assert isinstance(line.ask(PeerKey(HOG, "w"))[0], Full)
    for uid in (ANNA, BERT):  # and one for each user, whatever the labels of another fill
        assert line.ask(PeerKey(uid, "")) == [WAITING]
        assert isinstance(line.ask(PeerKey(uid, ""))[0], Full)
    assert set(line.next(3)) >= {PeerKey(ANNA, ""), PeerKey(BERT, "")}


def test_the_order_of_a_long_queue_is_what_happens() -> None:
    shares = Shares(uids={ANNA: Share(2)}, clients={"b": Share(3)})
    line = Line(shares=shares)
    line.ask(PeerKey(HOG, ""))
    for uid, label, count in [(HOG, "a", 7), (ANNA, "b", 9), (BERT, "b", 4), (HOG, "b", 5)]:
        line.ask(PeerKey(uid, label), count)
    line.next(6)  # in the middle of a round
    foretold = [peer for peer, _ in line.admission.order()]  # type: ignore[misc,has-type]
    assert foretold == line.next(19)


def test_ten_thousand_waiters_are_asked_their_places_and_give_up_in_no_time() -> None:
    for labels in (1, 10_000):
        line = Line()
        line.ask(PeerKey(HOG, "first"))
        places = Places(line.admission)
        began = time.process_time()
        for number in range(10_000):
            line.ask(PeerKey(ANNA, str(number % labels)))
            places.find((PeerKey(ANNA, str(number % labels)), number + 2), number / 10_000)
        for number in range(10_000):
            ticket = (PeerKey(ANNA, str(number % labels)), number + 2)
            assert places.find(ticket, 10 + number / 10_000).position > 0
            line.admission.withdraw(ticket)
        assert line.admission.waiting == 0
        # a count for each would take minutes; the bound leaves room for a loaded machine
        assert time.process_time() - began < 15


def test_places_of_a_long_queue_are_of_a_moment_ago() -> None:
    line = Line()
    line.ask(PeerKey(HOG, "first"))
    line.ask(PeerKey(ANNA, "a"), EXACT_UP_TO + 10)
    places = Places(line.admission)
    second, last = (PeerKey(ANNA, "a"), 3), (PeerKey(ANNA, "a"), EXACT_UP_TO + 11)
    assert places.find(second, 0.0).position == 2
    line.end()
    assert places.find(second, KEPT_S / 2).position == 2
    assert places.find(second, KEPT_S).position == 1
    line.ask(PeerKey(ANNA, "a"))
    newest = (PeerKey(ANNA, "a"), EXACT_UP_TO + 12)
    assert places.find(newest, KEPT_S).position == line.admission.waiting
    for _ in range(10):
        line.end()
    assert places.find(last, KEPT_S).position == EXACT_UP_TO - 1  # short enough to be counted
