"""The child process that holds a model: `python -m inferd_daemon.engines.libllama.worker FD`.

FD is its end of the control socketpair. It lives as long as the daemon holds the other end. It
starts no event loop and imports little: requests go straight to llama.cpp's own server threads.
"""

import os
import select
import signal
import socket
import sys
from typing import NoReturn

from .control import (
    Boot,
    Control,
    ControlStream,
    Failed,
    Loaded,
    Loading,
    receive_blocking,
)


def main() -> NoReturn:
    """Ends with the process: status 0 when told to go, 1 after a failure."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    stream = ControlStream()
    boot = receive_blocking(connection, stream)
    if not isinstance(boot, Boot):
        sys.exit(1)
    # While a model loads, the interpreter runs no handler: the kernel's own must do.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from . import server as engine  # slow to import, so after the boot message
    except ImportError as error:
        fail(connection, f"the bundled engine (xllamacpp) does not load: {error}")
    send(connection, Loading())
    try:
        server = engine.load(boot)
    except RuntimeError as error:
        fail(connection, f"llama.cpp: {error}")
    # llama.cpp has set handlers of its own, which end its loop and leave the process standing.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: engine.stop_now(boot.socket_path, 0))
    send(connection, Loaded(engine.accelerator(), engine.version()))
    hold(server, connection, stream)
    engine.stop_now(boot.socket_path, 0)


def hold(_server: object, connection: socket.socket, stream: ControlStream) -> None:
    """Keep the server until the daemon lets go of its end.

    The kernel may have any thread take a signal, above all after a stop: this one is woken too.
    """
    woken, wakes = socket.socketpair()
    wakes.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno())
    either = select.poll()
    for each in (connection, woken):
        either.register(each, select.POLLIN)
    try:
        while True:
            readable = {descriptor for descriptor, _ in either.poll()}
            if connection.fileno() in readable and receive_blocking(connection, stream) is None:
                return
    except OSError:
        return
    finally:
        signal.set_wakeup_fd(-1)  # its number may be another file's from here on


def send(connection: socket.socket, message: Control) -> None:
    """Send to the daemon; when it is gone, so is this process."""
    try:
        connection.sendall(ControlStream.pack(message))
    except OSError:
        os._exit(1)


def fail(connection: socket.socket, reason: str) -> NoReturn:
    """Tell why, in the log as well, behind llama.cpp's own words; and end."""
    from .. import llama_log  # what starts well has no need of it

    llama_log.flush()
    print(reason, file=sys.stderr, flush=True)
    send(connection, Failed(reason))
    sys.exit(1)


if __name__ == "__main__":
    main()
