"""When a lease is to be renewed, and when it has to be given up; pure, the times are given.

A third of the time to live is waited for, so that two renewals may fail before the lease is lost.
What the daemon says of the lease is final; that it cannot be asked is not, until the time is up.
"""

from inferd_proto import JsonObject, Lease

from .errors import ClientClosed, InferdError, LeaseLost, RequestFailed, RequestRefused

RENEWALS_PER_TTL = 3
_RETRY_S = 0.5
_LOOK_S = 15.0
"""A lease without a time to live has nothing to renew: it is looked at, for its loss to be told."""
PATIENCE_S = 5.0
"""For one answer; the journal's disk is slow at times, but a daemon that hangs must not use up
the time to live."""


class Renewal:
    """The state of one lease's renewing; times in seconds of one monotonic clock."""

    def __init__(self, lease: Lease, now: float) -> None:
        self._ref = lease.lease_ref
        self._ttl_ms = lease.ttl_ms
        self._renews = lease.renewable and lease.ttl_ms is not None
        self.expires_at = float("inf")
        """When the daemon ends the lease unless it is renewed; never late."""
        self.next_at = now + _LOOK_S
        """When to act next: to renew, to look, or to give up."""
        if lease.left_ms is not None:
            self._live_until(now, now + lease.left_ms / 1000)

    def request(self) -> tuple[str, JsonObject]:
        """The operation that is due, with its arguments: a renewal, or a look."""
        if self._renews and self._ttl_ms is not None:
            return "lease.renew", {"lease_ref": self._ref, "ttl_ms": self._ttl_ms}
        return "lease.get", {"lease_ref": self._ref}

    def patience_s(self, now: float) -> float:
        """How long one attempt that begins now may take."""
        return max(0.0, min(PATIENCE_S, self.expires_at - now))

    def expired(self, now: float) -> LeaseLost | None:
        """The loss where the time is up."""
        if now < self.expires_at:
            return None
        if not self._renews:
            return LeaseLost("its time is up, and it is not renewable", self._ref)
        return LeaseLost("its time is up, and it could not be renewed", self._ref)

    def succeeded(self, asked_at: float) -> None:
        """The daemon granted, or confirmed, what was asked at `asked_at`."""
        if self._renews and self._ttl_ms is not None:
            self._live_until(asked_at, asked_at + self._ttl_ms / 1000)
        else:
            self.next_at = min(asked_at + _LOOK_S, self.expires_at)

    def failed(self, error: InferdError, now: float) -> LeaseLost | None:
        """The loss where `error` leaves no hope; else `next_at` says when to try again."""
        if self._is_final(error) or now >= self.expires_at:
            why = error.message if isinstance(error, RequestFailed) else str(error)
            return LeaseLost(why, self._ref)
        self.next_at = min(now + _RETRY_S, self.expires_at)
        return None

    def _live_until(self, since: float, expires_at: float) -> None:
        self.expires_at = expires_at
        waits = (expires_at - since) / RENEWALS_PER_TTL if self._renews else _LOOK_S
        self.next_at = min(since + waits, expires_at)

    def _is_final(self, error: InferdError) -> bool:
        if isinstance(error, RequestRefused | ClientClosed):
            return True
        # Nothing but its connection keeps a lease without a time to live.
        return self._ttl_ms is None and not isinstance(error, RequestFailed)
