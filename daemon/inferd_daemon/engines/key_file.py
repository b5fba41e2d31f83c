"""The first key of a key file: one key on a line, `#` begins a comment.

Never shows what it read.
"""

from pathlib import Path

from .secret import Secret

MAX_KEY_FILE_BYTES = 64 * 1024


class KeyFileError(Exception):
    """No key there; the text says why, and is fit for who named the file."""


def read_key_file(path: Path) -> Secret:
    """The key. Raises KeyFileError."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_KEY_FILE_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise KeyFileError(f"{path} cannot be read: {why}") from error
    keys = [line.strip() for line in text.splitlines()]
    key = next((key for key in keys if key and not key.startswith("#")), None)
    if key is None:
        raise KeyFileError(f"{path} holds no key")
    return Secret(key)
