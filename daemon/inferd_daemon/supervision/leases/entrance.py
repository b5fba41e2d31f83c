"""Who comes in under a lease, by reference and bearer token: the door of the lease's own routes.

Besides leases there are passes: what one run of an agent may use while it runs, and no longer.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from inferd_proto import ErrorCode

from ...errors import RequestError
from .keeper import REF_BYTES, LeaseKeeper
from .lease import not_found
from .tokens import digest, fits, new_token

FIRST_REFUSAL = 400
MAX_REFUSAL_BYTES = 4096


class WrongToken(RequestError):
    """There is such a lease, but this is not its owner."""

    def __init__(self) -> None:
        super().__init__(
            ErrorCode.PERMISSION_DENIED,
            "the bearer token is not this lease's: send the headers of its endpoint",
        )


class Entry(NamedTuple):
    """What `ref` opens: one runtime, and in it `model`; None where its owner named none."""

    ref: str
    instance_key: str
    model: str | None = None


class Pass(NamedTuple):
    """A reference with its token, to be told to one run of an agent."""

    ref: str
    token: str

    def __repr__(self) -> str:
        return f"Pass({self.ref!r})"


class Refusal(NamedTuple):
    """How the runtime behind a pass refused a request: `body` is the head of its answer."""

    status: int
    body: bytes


class _Kept(NamedTuple):
    instance_key: str
    token_sha256: str
    model: str | None = None


class Entrance:
    """Opens for leases whose owners come over the front, and for passes."""

    def __init__(self, keeper: LeaseKeeper) -> None:
        self._keeper = keeper
        self._passes: dict[str, _Kept] = {}
        self._refusals: dict[str, Refusal] = {}

    def find(self, ref: str) -> Entry:
        """What is there, whoever asks. Raises RequestError (`not_found`)."""
        kept = self._find(ref)
        return Entry(ref, kept.instance_key, kept.model)

    def enter(self, ref: str, token: str | None) -> Entry:
        """For who bears its token. Raises RequestError (`not_found`), WrongToken."""
        kept = self._find(ref)
        if not fits(token or "", kept.token_sha256):
            raise WrongToken
        return Entry(ref, kept.instance_key, kept.model)

    @contextmanager
    def passing(self, instance_key: str) -> Iterator[Pass]:
        """A pass to a runtime that the caller holds, for the block."""
        given = Pass(f"run-{secrets.token_urlsafe(REF_BYTES)}", new_token())
        self._passes[given.ref] = _Kept(instance_key, digest(given.token))
        try:
            yield given
        finally:
            del self._passes[given.ref]
            self._refusals.pop(given.ref, None)

    def note(self, ref: str, status: int, body: bytes = b"") -> None:
        """What came of the latest request by the pass `ref`; of leases nothing is kept.

        Who uses a pass may tell its own story of an error; this is the true one.
        """
        if ref not in self._passes:
            return
        if status < FIRST_REFUSAL:
            self._refusals.pop(ref, None)
        else:
            self._refusals[ref] = Refusal(status, body[:MAX_REFUSAL_BYTES])

    def refusal(self, ref: str) -> Refusal | None:
        """How the latest request by the pass `ref` was refused; None where it was not."""
        return self._refusals.get(ref)

    def _find(self, ref: str) -> _Kept:
        kept = self._passes.get(ref)
        if kept is not None:
            return kept
        lease = self._keeper.table.find(ref)
        if lease is None or lease.token_sha256 is None or not self._keeper.alive(lease):
            raise not_found(ref)
        return _Kept(lease.instance_key, lease.token_sha256, lease.model_identity)
