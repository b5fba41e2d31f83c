"""The daemon's HTTP front as leases see it: an address for those who know only URLs."""

from typing import NamedTuple, Protocol


class FrontDoor(Protocol):
    """There where it is configured; else opened on demand, for as long as the daemon runs."""

    @property
    def stands(self) -> bool:
        """Whether it is there already, for who must not have it opened."""

    async def address(self) -> str:
        """`http://127.0.0.1:PORT`, listening; the same from one run of the daemon to the next.

        Raises RequestError (`backend_unavailable`) where it cannot listen.
        """


class Door(NamedTuple):
    """What a lease's owner needs to come in: the front's address, and the lease's own token."""

    address: str
    token: str

    def __repr__(self) -> str:
        return f"Door({self.address!r})"

    def root_url(self, lease_ref: str) -> str:
        """Of the lease's own routes."""
        return f"{self.address}/leases/{lease_ref}"
