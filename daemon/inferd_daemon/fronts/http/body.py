"""The body of a request as the application receives it: bounded, and paid for from the daemon's
budget of memory before it is held."""

from inferd_proto import ErrorCode

from ...errors import CallerFault, RequestError
from ..byte_budget import ByteBudget, SessionAccount
from .exchange import Exchange

FREE_BYTES = 64 * 1024
"""What every connection may hold at any time is not counted."""


class Body:
    """`receive` is the application's. `close` gives back what was paid."""

    def __init__(self, exchange: Exchange, limit: int, budget: ByteBudget) -> None:
        self._exchange = exchange
        self._limit = limit
        self._account = SessionAccount(budget)

    def announce(self) -> None:
        """Pay for what the head announces. Raises RequestError where that is too much."""
        length = self._exchange.incoming.content_length
        if length is not None:
            self._charge(length)

    async def receive(self) -> dict[str, object]:
        """As ASGI has it. Raises RequestError where the body exceeds what it may."""
        message = await self._exchange.receive()
        if self._exchange.incoming.content_length is None:
            self._charge(self._exchange.incoming.received)
        return message

    def close(self) -> None:
        """Nothing of it is in memory any more."""
        self._account.close()

    def _charge(self, total: int) -> None:
        if total > self._limit:
            raise CallerFault(
                f"the body is over the {self._limit} bytes that `max_body_bytes` of [http] allows",
                ErrorCode.FRAME_TOO_LARGE,
            )
        more = total - FREE_BYTES - self._account.held
        if more > 0 and not self._account.take(more):
            raise RequestError(
                ErrorCode.QUEUE_FULL,
                "the daemon holds as many bytes of requests as it may; try again later",
            )
