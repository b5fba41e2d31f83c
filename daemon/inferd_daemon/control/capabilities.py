"""`capabilities`: what each backend can do."""

import msgspec

from inferd_proto import JsonObject

from .call import Call


async def capabilities(call: Call) -> JsonObject:
    """`{"backends": [{"backend", "wire_version", …}]}`; an absent key means not supported."""
    backends = {b.name: b for route in call.view.router.routes for b in route.backends}
    return {
        "backends": [
            {"backend": name, "wire_version": 1, "v2": True}
            | {
                key: value
                for key, value in msgspec.to_builtins(backend.capabilities).items()
                if value not in (False, None)
            }
            for name, backend in backends.items()
        ]
    }
