"""How long a client of an upstream waits, and for what.

Apart from the client, which takes long to load: who only says how patient it shall be does without.
"""

from msgspec import Struct


class Deadlines(Struct, frozen=True, kw_only=True):
    """In seconds.

    `first_byte_s` lasts until the first event of the answer: the upstream's queue and the reading
    of the prompt are in it, and comments are no event. `idle_s` is the longest silence after that.
    """

    total_s: float = 300.0
    connect_s: float = 5.0
    first_byte_s: float = 120.0
    idle_s: float = 60.0
