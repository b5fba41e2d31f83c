"""Which runtimes a caller may see: an administrator all, others what they hold and the routes'."""

from inferd_proto import ErrorCode

from ..errors import RequestError
from ..supervision.leases.lease import Claimant
from ..supervision.runtimes.managed import Managed
from .view import DaemonView


def visible_runtimes(view: DaemonView, claimant: Claimant) -> list[Managed]:
    """In the order in which they came to be."""
    return [runtime for runtime in view.leases.runtimes if may_see(view, claimant, runtime)]


def may_see(view: DaemonView, claimant: Claimant, runtime: Managed) -> bool:
    """Whether the caller may know of the runtime."""
    if claimant.admin or runtime.blueprint.route is not None:
        return True
    keeper = view.leases.keeper
    return bool(
        keeper.table.visible(keeper.now(), claimant, instance_key=runtime.blueprint.instance_key)
    )


def find_runtime(view: DaemonView, claimant: Claimant, instance_key: str) -> Managed:
    """By its instance key, or by its name where only one bears it.

    Raises RequestError (`not_found`, `invalid_request`).
    """
    seen = visible_runtimes(view, claimant)
    found = [runtime for runtime in seen if runtime.key == instance_key]
    found = found or [runtime for runtime in seen if runtime.blueprint.name == instance_key]
    if not found:
        raise RequestError(
            ErrorCode.NOT_FOUND, f"there is no runtime {instance_key[:128]!r}: see runtime.list"
        )
    if len(found) > 1:
        keys = ", ".join(runtime.key for runtime in found)
        raise RequestError(
            ErrorCode.INVALID_REQUEST, f"more than one runtime is {instance_key!r}: {keys}"
        )
    return found[0]
