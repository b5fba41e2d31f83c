"""What `[http]` needs of this machine and that is not there: keys, certificates, a group."""

import grp
from collections.abc import Iterator, Mapping

from ...config import HttpConfig
from ...config.lines import Path
from ...errors import OperatorError
from .keys import unfit_keys
from .tls import server_context


def unmet_needs(config: HttpConfig, environ: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    """By the path below `[http]`; the front does not start without."""
    yield from unfit_keys(config, environ)
    if config.unix_group is not None:
        try:
            grp.getgrnam(config.unix_group)
        except KeyError:
            yield ("unix_group",), f"there is no group {config.unix_group!r}"
    try:
        server_context(config)
    except OperatorError as error:
        key, _, why = str(error).removeprefix("http.").partition(": ")
        yield (key,), why
