"""A boot spec rendered for llama-server: argv and environment.

Pure. No secret enters argv: keys travel by the environment or by the path of a key file. The
inherited environment loses every LLAMA_* variable, which the server would read as flags.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...backends.runtime import Endpoint
from ..secret import Secret
from .boot_spec import BootSpec
from .flag_table import FIELD_FLAGS, NO_VALUE

_PLAIN = (
    "model",
    "mmproj",
    "alias",
    "ctx_size",
    "gpu_layers",
    "threads",
    "threads_batch",
    "threads_http",
    "parallel",
    "flash_attn",
    "embeddings",
    "reranking",
    "pooling",
    "timeout_seconds",
    "api_key_file",
)
"""Fields whose flag takes the field's value as it is. The address is rendered apart."""

_DEFAULTS = {
    # Abort in milliseconds: without it ggml attaches a debugger for a backtrace.
    "GGML_NO_BACKTRACE": "1",
    # By environment, because an engine that does not know one of these ignores it.
    "LLAMA_ARG_OFFLINE": "1",
    "LLAMA_ARG_ENDPOINT_METRICS": "1",
    "LLAMA_ARG_ENDPOINT_SLOTS": "1",
    "LLAMA_ARG_LOG_COLORS": "off",
}
_DROPPED = ("LLAMA_", "INFERD_", "HF_", "LISTEN_", "NOTIFY_SOCKET", "WATCHDOG_")
# The daemon's environment may hold keys of other services; no runtime needs them.
_SECRETS = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")


def render_argv(
    spec: BootSpec,
    command: Sequence[str],
    endpoint: Endpoint,
    *,
    served_name: str | None = None,
    slot_save_path: Path | None = None,
) -> list[str]:
    """The command line. `command` is the program with what must follow it; `served_name` is what
    answers name as their model where no alias does, else that is the file's path; `slot_save_path`
    is the directory for saved slots.
    """
    argv = [*command, *spec.launcher_args]
    for name in _PLAIN:
        value = getattr(spec, name)
        if name == "alias" and value is None:
            value = served_name
        if value is None or value is False:
            continue
        argv += [FIELD_FLAGS[name][0]] if name in NO_VALUE else [FIELD_FLAGS[name][0], str(value)]
    if endpoint.uds is not None:
        argv += ["--host", str(endpoint.uds)]
    else:
        argv += ["--host", str(endpoint.host), "--port", str(endpoint.port)]
    if spec.api_prefix:
        argv += ["--api-prefix", spec.api_prefix]
    if slot_save_path is not None:
        argv += ["--slot-save-path", str(slot_save_path)]
    return argv + spec.extra_args


def render_environment(
    spec: BootSpec, inherited: Mapping[str, str], key: Secret | None, mark: Mapping[str, str]
) -> dict[str, str]:
    """The child's whole environment.

    `key` is the API key where no key file holds it; `mark` are the variables by which the
    reaper knows the process as the daemon's own.
    """
    environment = {
        name: value
        for name, value in inherited.items()
        if not name.startswith(_DROPPED) and not name.endswith(_SECRETS)
    }
    environment |= _DEFAULTS | spec.environment
    if key is not None and spec.api_key_file is None:
        environment["LLAMA_API_KEY"] = key.reveal()
    return environment | dict(mark)
