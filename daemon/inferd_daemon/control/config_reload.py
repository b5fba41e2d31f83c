"""`config.reload`: have the daemon take up its configuration file as it is now."""

from inferd_proto import JsonObject

from .call import Call
from .daemon_upgrade import daemon_upgrade


async def config_reload(call: Call) -> JsonObject:
    """`{"state": "upgrading"}`: the daemon goes over to a self that has read the file.

    That is an upgrade in place, of the code as well where that has changed. Refused (`conflict`)
    with every mistake of the file, and the daemon goes on with what it has.
    """
    return await daemon_upgrade(call)
