"""Bearer tokens of leases: made, and compared. Pure.

The daemon keeps only a digest: who reads the journal or the memory of a table learns no token.
"""

import hashlib
import hmac
import secrets

TOKEN_BYTES = 24
"""192 random bits: more than nobody guesses, and it is asked for over loopback only."""


def new_token() -> str:
    """For one owner, once."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def digest(token: str) -> str:
    """What is kept of a token. It is random, so that a salt would add nothing."""
    return hashlib.sha256(token.encode()).hexdigest()


def fits(token: str, kept: str) -> bool:
    """Whether `token` has this digest, in a time that tells nothing of either."""
    return hmac.compare_digest(digest(token), kept)
