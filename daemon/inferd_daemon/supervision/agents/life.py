"""The life of an agent's runtime: its program is seen ready, and looked at while it is held.

Its runs are others' business: they begin and end with requests.
"""

from ..runtimes.attachment import Attachment
from ..runtimes.backoff import RestartPolicy

RETRIES = RestartPolicy(first_s=5.0, longest_s=60.0, limit=10_000)
"""While it is held, for ever: someone may install the program, or log in."""


class AgentLife(Attachment):
    """One agent under supervision."""

    slowest_look_s = 15.0
