"""A TCP port that is the test's own while nobody listens on it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_port(port: int = 0) -> Iterator[int]:
    """A loopback port: who connects is refused, and no other program is given it, until the test
    has somebody listen there. He has to allow that the address is used again, as servers do.

    `port` is one that somebody has just left, to be kept for who comes back; 0 is any.
    """
    with socket.socket() as holder:
        # either of the two lets another one in who asks for the same
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", port))
        yield holder.getsockname()[1]
