"""From what a caller names to what a runtime is to be: a spec, a route's backend, the journal's.

Normalises and checks; starts nothing.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec import ValidationError

from inferd_proto import ErrorCode, JsonObject, TargetKind, target_kind

from ...config.boot_fields import metadata_mistake
from ...engines.attached.spec import normalise_attach
from ...engines.llama_server.boot_spec import normalise
from ...engines.secret import Secret
from ...errors import CallerFault, RequestError
from ..runtimes.attach_blueprint import AttachBlueprint
from ..runtimes.blueprint import Blueprint, Former
from ..runtimes.boot_blueprint import BootBlueprint, Site
from .journal import RuntimeEntry

KEPT_SPECS = 32
MAX_KEPT_BYTES = 16 * 1024
"""Of one of them."""
SpecReader = Callable[[JsonObject, bool], Blueprint]
"""A spec, and whether its author is an administrator; raises CallerFault."""
SpecReaders = dict[TargetKind, SpecReader]


class Blueprints:
    """`readers` know how to read the specs of each kind; `configured` are those of the routes'
    backends, by the backend's name.
    """

    def __init__(
        self, readers: Mapping[TargetKind, SpecReader], configured: Mapping[str, Blueprint]
    ) -> None:
        self._readers = readers
        self.configured = configured

    def of_spec(self, spec: JsonObject, *, admin: bool) -> Blueprint:
        """What a caller's spec means. Raises CallerFault, with every mistake by its field."""
        try:
            kind = target_kind(spec)
        except ValueError as error:
            raise CallerFault(str(error)) from error
        # Not of one of a former run: what was taken then is kept.
        mistake = metadata_mistake(spec.get("metadata"))
        if mistake is not None:
            refused = CallerFault(f"the {kind} spec is wrong: `metadata` {mistake}")
            refused.details = {"mistakes": [{"field": "metadata", "message": mistake}]}
            raise refused
        return self._read(kind, spec, admin)

    def of_entry(self, entry: RuntimeEntry) -> Blueprint:
        """A runtime of the daemon's former run. Raises RequestError."""
        for blueprint in self.configured.values():
            if blueprint.instance_key == entry.instance_key:
                return blueprint
        for kind in self._readers:
            if kind == entry.kind:
                return self._read(kind, entry.spec, True)
        raise CallerFault(f"a {entry.kind} runtime that is configured no more")

    def _read(self, kind: TargetKind, spec: JsonObject, admin: bool) -> Blueprint:
        reader = self._readers.get(kind)
        if reader is None:
            raise CallerFault(f"this daemon serves no {kind} specs", ErrorCode.INCOMPATIBLE)
        try:
            return reader(spec, admin)
        except ValidationError as error:
            raise CallerFault(f"the {kind} spec is wrong: {error}") from error


def kept_address(entry: RuntimeEntry) -> Former:
    """The address and key that were published."""
    key = None if entry.api_key is None else Secret(entry.api_key)
    return Former(key, entry.port, entry.group)


def boot_reader(site: Site, *, idle_ttl_s: float | None, allow_remote: bool) -> SpecReader:
    """Reads boot specs; those that are asked for again and again only once."""
    kept: OrderedDict[bytes, BootBlueprint] = OrderedDict()

    def read(spec: JsonObject, admin: bool) -> Blueprint:
        text = msgspec.json.encode(spec)
        blueprint = kept.get(text)
        if blueprint is None:
            boot = normalise(spec, allow_remote=allow_remote)
            blueprint = BootBlueprint(boot, site, idle_ttl_s=idle_ttl_s)
            if len(text) <= MAX_KEPT_BYTES:
                kept[text] = blueprint
        else:
            kept.move_to_end(text)
        while len(kept) > KEPT_SPECS:
            kept.popitem(last=False)
        _require_right(blueprint.spec.privileged(), admin)
        return blueprint

    return read


def attach_reader(environment: Mapping[str, str], *, allow_remote: bool) -> SpecReader:
    """Reads attach specs; `environment` holds the keys that they name."""

    def read(spec: JsonObject, admin: bool) -> Blueprint:
        attach = normalise_attach(spec, allow_remote=allow_remote)
        _require_right(attach.privileged(), admin)
        return AttachBlueprint(attach, environment)

    return read


def _require_right(reach: Sequence[str], admin: bool) -> None:
    """Raises RequestError where fields were given that are not everybody's."""
    if reach and not admin:
        raise RequestError(
            ErrorCode.PERMISSION_DENIED,
            f"only the daemon's user, root and the admin group may give {', '.join(reach)}",
        )
