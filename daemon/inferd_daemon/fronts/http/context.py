"""What every HTTP endpoint may see: `request.app.state.context`."""

from collections import Counter
from dataclasses import dataclass, field

from ...config import HttpConfig
from ...control.view import DaemonView


@dataclass(frozen=True)
class HttpContext:
    """One for the life of the front."""

    view: DaemonView
    config: HttpConfig
    responses: Counter[int] = field(default_factory=Counter)
    """How many answers had which status; the guard counts."""
