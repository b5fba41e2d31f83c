"""What every HTTP endpoint may see: `request.app.state.context`."""

from dataclasses import dataclass

from ...config import HttpConfig
from ...control.view import DaemonView


@dataclass(frozen=True)
class HttpContext:
    """One for the life of the front."""

    view: DaemonView
    config: HttpConfig
