"""To the queues each configured client is somebody of its own."""

from inferd_daemon.fronts.http.caller import Callers
from inferd_daemon.routing.shares import NO_UID, PeerKey


def test_who_is_who() -> None:
    callers = Callers(["editor", "batch"])
    assert callers.find("editor", None) == ("editor", PeerKey(-2, "editor"))
    assert callers.find("batch", None) == ("batch", PeerKey(-3, "batch"))
    assert callers.find(None, None) == ("http", PeerKey(NO_UID, "http"))
    # the kernel's word stands above a key: a user's keys divide what the user has
    assert callers.find("editor", 1000) == ("editor", PeerKey(1000, "editor"))
    assert callers.find(None, 1000) == ("http", PeerKey(1000, "http"))
