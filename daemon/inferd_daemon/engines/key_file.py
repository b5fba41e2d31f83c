"""The first key of a key file: one key on a line, `#` begins a comment.

Never shows what it read.
"""

import os
import stat
from pathlib import Path

from .secret import Secret

MAX_KEY_FILE_BYTES = 64 * 1024


class KeyFileError(Exception):
    """No key there; the text says why, and is fit for who named the file."""


def read_key_file(path: Path) -> Secret:
    """The key. Raises KeyFileError."""
    try:
        # Nobody need ever write into a FIFO: to open one must not wait for that.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise KeyFileError(f"{path} cannot be read: it is not a regular file")
            text = file.read(MAX_KEY_FILE_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise KeyFileError(f"{path} cannot be read: {why}") from error
    keys = [line.strip() for line in text.splitlines()]
    key = next((key for key in keys if key and not key.startswith("#")), None)
    if key is None:
        raise KeyFileError(f"{path} holds no key")
    return Secret(key)
