"""`[agents.<provider>]`: how CLI agents of one provider are run, and how many at once."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Provider = Literal["codex", "claude", "gemini", "amp"]
ModelName = Annotated[str, Meta(min_length=1, max_length=256)]
VariableName = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}\Z")]


class AgentConfig(Struct, frozen=True, kw_only=True):
    """One provider; without the table it is found on PATH and has these limits.

    `binary` names the program. `models` are those that a lease may ask for, the first where it asks
    for none; missing: any. Without them, `upstream` is the route for who asks for neither; without
    that the program takes what it takes by itself. At most
    `max_runs` run at once, `max_waiting` more requests wait, the next one gets `queue_full`. A run
    is ended after `deadline_s`, or when its answer has more than `max_output_bytes` of text.
    `environment` names variables of the daemon's own that its runs get, besides those that the
    provider's profile names.
    """

    binary: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None
    models: list[ModelName] | None = None
    upstream: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    max_runs: Annotated[int, Meta(ge=1, le=1000)] = 4
    max_waiting: Annotated[int, Meta(ge=0, le=100_000)] = 32
    deadline_s: Annotated[float, Meta(gt=0, le=86_400)] = 600.0
    max_output_bytes: Annotated[int, Meta(ge=1, le=1024**3)] = 4 * 1024**2
    environment: list[VariableName] = []
