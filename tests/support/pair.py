"""Both roles of a connection, piped into each other without I/O.

Bytes wait in each direction until they are delivered, in pieces of any size: what a test of a
protocol needs of a network. Never reorders, loses or changes a byte.
"""

from inferd_proto import (
    Answer,
    ClientConnection,
    ClientEvent,
    Event,
    FrameType,
    Refused,
    Request,
    ServerConnection,
)


class ConnectionPair:
    """A client and a server connection with a wire between them."""

    def __init__(
        self, *, encoding: FrameType = FrameType.JSON, server: ServerConnection | None = None
    ) -> None:
        self.client = ClientConnection(encoding=encoding)
        self.server = server if server is not None else ServerConnection()
        self.upstream = bytearray()
        """Bytes on their way to the server."""
        self.downstream = bytearray()
        """Bytes on their way to the client."""

    def ask(self, request: Request, blobs: tuple[bytes, ...] = ()) -> None:
        """The client sends a request."""
        self.upstream += b"".join(self.client.send_request(request, blobs))

    def cancel(self, request_id: str) -> None:
        """The client cancels a request."""
        self.upstream += self.client.send_cancel(request_id)

    def answer(self, answer: Answer) -> None:
        """The server sends an answer."""
        self.downstream += self.server.send(answer)

    def to_server(self, size: int | None = None) -> list[Event]:
        """Deliver `size` bytes (all by default); what the server made of them.

        The error frames of what it refused are on their way back.
        """
        piece = bytes(self.upstream[:size])
        del self.upstream[: len(piece)]
        if piece:
            self.server.receive_data(piece)
        events: list[Event] = []
        while (event := self.server.next_event()) is not None:
            events.append(event)
            if isinstance(event, Refused):
                self.downstream += event.data
        return events

    def to_client(self, size: int | None = None) -> list[ClientEvent]:
        """Deliver `size` bytes (all by default); what the client made of them."""
        piece = bytes(self.downstream[:size])
        del self.downstream[: len(piece)]
        if piece:
            self.client.receive_data(piece)
        events: list[ClientEvent] = []
        while (event := self.client.next_event()) is not None:
            events.append(event)
        return events
