"""One run of an agent where there is no network but loopback; prints its answer.

unshare --net python -m tests.support.agent_offline PROVIDER DIRECTORY
"""

import fcntl
import socket
import struct
import sys
from pathlib import Path

import trio

from .agent_clis import ask, request_to
from .model_answers import PROTOCOLS
from .scripted_upstream import serve

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1


def raise_loopback() -> None:
    """A new namespace has it, but down. Fails where there is more than that."""
    names = [name for _, name in socket.if_nameindex()]
    if names != ["lo"]:
        raise SystemExit(f"this is no namespace of its own: it has {names}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh22x", b"lo", 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | IFF_UP))


async def main(provider: str, directory: Path) -> None:
    """Raises RequestError."""
    raise_loopback()
    protocol = PROTOCOLS[provider]
    async with serve(directory, *protocol.prelude(), protocol.answer(), tcp=True) as upstream:
        with trio.fail_after(100):
            answer = await ask(provider, request_to(upstream.url), directory)
    print(answer.text)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], Path(sys.argv[2]))
