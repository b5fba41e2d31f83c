"""The built-in demo model: a GGUF under 1 MB that lets inferd answer before any download.

It recites a fixed text and fills in tool calls and JSON schemas, and says so. What builds the file,
byte for byte, is among the tests; nothing here may need what building needs.
"""

from pathlib import Path

_DIRECTORY = Path(__file__).resolve().parent


def demo_model_path() -> Path:
    """Return the absolute path of the packaged model file."""
    return _DIRECTORY / "inferd-demo.gguf"
