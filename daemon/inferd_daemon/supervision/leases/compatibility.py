"""Whether a consumer and a backend fit, and if not, why (leases.md section 1).

Pure: two manifests in, one result out. Starts nothing, asks nobody. A capability that is only
"unknown" never meets a requirement of true; a requirement of "unknown" is met by all but false.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import TypeVar

import msgspec

from inferd_proto import (
    BackendManifest,
    CapabilityMap,
    CapabilityValue,
    CompatibilityReason,
    CompatibilityResult,
    ConsumerManifest,
    ErrorCode,
    JsonObject,
    ManagementMode,
)

from ...errors import RequestError

Word = TypeVar("Word", bound=StrEnum)

STREAMING = "streaming"


def match(consumer: ConsumerManifest, backend: BackendManifest) -> CompatibilityResult:
    """The result for one pair.

    `reason` is the first mismatch in the order runtime kind, management mode, protocol, startup
    kind, target class, streaming, other capabilities; `missing_requirements` holds all of them.
    """
    mode = _first_common(backend.management_modes, _known_modes(consumer))
    protocol = _first_common(backend.protocols, consumer.accepted_protocols)
    wanted = consumer.constraints
    mismatches: list[tuple[CompatibilityReason, str]] = []
    if backend.runtime_kind not in consumer.accepted_runtime_kinds:
        mismatches.append((CompatibilityReason.RUNTIME_KIND_MISMATCH, "runtime_kind"))
    if mode is None:
        mismatches.append((CompatibilityReason.MANAGEMENT_MODE_MISMATCH, "management_mode"))
    if protocol is None:
        mismatches.append((CompatibilityReason.UNSUPPORTED_PROTOCOL, "protocol"))
    if wanted.startup_kind not in (None, backend.startup_kind):
        mismatches.append((CompatibilityReason.STARTUP_KIND_MISMATCH, "startup_kind"))
    if wanted.target_class not in (None, backend.target_class):
        mismatches.append((CompatibilityReason.TARGET_CLASS_MISMATCH, "target_class"))
    mismatches += _missing_capabilities(consumer.required_capabilities, backend.capabilities)
    return CompatibilityResult(
        compatible=not mismatches,
        reason=mismatches[0][0] if mismatches else CompatibilityReason.PROTOCOL_MATCH,
        resolved_runtime_kind=None if mismatches else backend.runtime_kind,
        resolved_management_mode=None if mismatches else mode,
        resolved_protocol=None if mismatches else protocol,
        warnings=_unmet(consumer.optional_capabilities, backend.capabilities),
        missing_requirements=[name for _, name in mismatches],
        metadata={"backend": backend.backend, "consumer": consumer.consumer},
    )


def explain(result: CompatibilityResult) -> str:
    """One sentence for the error `incompatible`."""
    missing = ", ".join(result.missing_requirements)
    backend = result.metadata.get("backend", "the runtime")
    return f"{backend} does not fit the consumer: {result.reason} (not met: {missing})"


def incompatible(message: str, result: CompatibilityResult) -> RequestError:
    """The error that carries the whole result; nothing was started."""
    details: JsonObject = {"compatibility": msgspec.to_builtins(result)}
    return RequestError(ErrorCode.INCOMPATIBLE, message, details=details)


def _known_modes(consumer: ConsumerManifest) -> list[ManagementMode]:
    known: list[ManagementMode] = []
    for word in consumer.accepted_management_modes:
        try:
            known.append(ManagementMode(word))
        except ValueError:
            continue  # a word of another version: nothing here can match it
    return known


def _first_common(offered: Iterable[Word], accepted: Iterable[str]) -> Word | None:
    """The first offered one that is accepted: the backend lists its best first."""
    words = set(accepted)
    return next((word for word in offered if word in words), None)


def _missing_capabilities(
    required: CapabilityMap, offered: CapabilityMap
) -> list[tuple[CompatibilityReason, str]]:
    names = sorted(_unmet(required, offered), key=lambda name: name != STREAMING)
    return [
        (
            CompatibilityReason.MISSING_STREAMING
            if name == STREAMING
            else CompatibilityReason.MISSING_CAPABILITY,
            name,
        )
        for name in names
    ]


def _unmet(wanted: CapabilityMap, offered: CapabilityMap) -> list[str]:
    return sorted(
        name for name, value in wanted.items() if not _met(value, offered.get(name, False))
    )


def _met(wanted: CapabilityValue, offered: CapabilityValue) -> bool:
    match wanted:
        case False:
            return True  # not needed; having it is no harm
        case "unknown":
            return offered is not False
        case _:
            return offered is True
