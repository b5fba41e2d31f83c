"""The form of a reference here is that of the daemon's."""

import secrets

import pytest
from click import BadParameter

from inferd_client.ctl.lease_ref import LEASE_REF
from inferd_daemon.supervision.leases.keeper import REF_BYTES


def test_every_reference_that_the_daemon_makes_is_one() -> None:
    for _ in range(100):
        ref = f"lease-{secrets.token_urlsafe(REF_BYTES)}"
        assert LEASE_REF.convert(ref, None, None) == ref
        with pytest.raises(BadParameter, match="not a whole reference"):
            LEASE_REF.convert(ref[:-1], None, None)
