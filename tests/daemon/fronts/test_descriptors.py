"""The limit of open files, tried in processes of their own."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from inferd_daemon.fronts.descriptors import connection_limit
soft, hard, wanted = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(connection_limit(wanted), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "allowed", "soft_after"),
    [
        (256, 4096, 100, 100, 256),  # enough as it is
        (256, 4096, 1000, 1000, 1128),  # raised as far as needed
        (256, 1024, 5000, 896, 1024),  # raised as far as allowed, the reserve kept
        (64, 64, 1000, 1, 64),  # one is better than none
    ],
)
def test_clients_get_what_the_reserve_leaves(
    soft: int, hard: int, wanted: int, allowed: int, soft_after: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(soft), str(hard), str(wanted)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == [str(allowed), str(soft_after), str(hard)]
