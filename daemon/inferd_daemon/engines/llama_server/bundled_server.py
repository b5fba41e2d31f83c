"""The bundled llama-server: the xllamacpp wheel behind the real one's flags, for its boot specs.

    python -P -m inferd_daemon.engines.llama_server.bundled_server --model FILE --host SOCKET …

Takes the flags of every field, and of the options that people add most. An unknown one ends it
with the real one's words, so that failures read the same. The key comes by LLAMA_API_KEY or a file.
"""

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from .flag_table import FIELD_FLAGS, spelled

Params = Any  # xllamacpp has no types
Setter = Callable[[Params, str], None]

_TRUE = ("1", "true", "on", "yes", "enabled")
_GPU_LAYERS = {"auto": -1, "all": -2}
_FLASH = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}


class UsageError(Exception):
    """The command line cannot be served."""


def main() -> NoReturn:
    """Serve until a signal says otherwise."""
    # While a model loads, the interpreter runs no handler: the kernel's own must do.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    import xllamacpp  # slow, and not needed to name a mistake in the flags' names

    params = xllamacpp.CommonParams()
    try:
        configure(params, sys.argv[1:], os.environ)
    except UsageError as error:
        _end(f"error: {error}")
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        _end(f"exiting due to model loading error: {error}")
    # llama.cpp has set handlers of its own, which end its loop and leave the process standing.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: os._exit(0))
    _hold(server)


def configure(params: Params, arguments: list[str], environment: "os._Environ[str]") -> None:
    """Set `params` as the flags and the environment say. Raises UsageError."""
    params.ui = False
    params.verbosity = 3
    # Without `--parallel`, four slots share one context, as in the real server.
    params.n_parallel, params.kv_unified = 4, True
    params.endpoint_metrics = environment.get("LLAMA_ARG_ENDPOINT_METRICS", "") in _TRUE
    if key := environment.get("LLAMA_API_KEY"):
        params.api_keys = key.split(",")
    rest = iter(arguments)
    for argument in rest:
        flag = spelled(argument)
        if flag in _SWITCHES:
            _SWITCHES[flag](params)
            continue
        setter = _SETTERS.get(flag)
        if setter is None:
            raise UsageError(f"invalid argument: {flag} (the bundled engine does not know it)")
        value = next(rest, None)
        if value is None:
            raise UsageError(f"expected value for argument {flag}")
        try:
            setter(params, value)
        except (ValueError, KeyError, OSError) as error:
            raise UsageError(f'error while handling argument "{flag}": {error}') from error
    if not params.model.path:
        raise UsageError("expected value for argument --model")
    if not _has_gpu():
        # Fitting the model to a GPU's memory is a dry run of the load, for nothing here.
        params.fit_params = False


def _has_gpu() -> bool:
    import xllamacpp

    names = [str(device["name"]).upper() for device in xllamacpp.get_device_info()]
    return any(not name.startswith("CPU") for name in names)


def _hold(_server: object) -> NoReturn:
    """The server lives as long as its object; its threads do the work.

    The kernel may have any of them take a signal, above all after a stop: this one is woken too.
    """
    woken, wakes = socket.socketpair()
    wakes.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno())
    while True:
        woken.recv(1)


def _end(reason: str) -> NoReturn:
    from .. import llama_log  # what starts well has no need of it

    llama_log.flush()
    print(reason, file=sys.stderr, flush=True)
    sys.exit(1)


# -- one setter for each flag --------------------------------------------------------------


def _integer(name: str) -> Setter:
    def set_it(params: Params, value: str) -> None:
        setattr(params, name, int(value))

    return set_it


def _text(name: str) -> Setter:
    def set_it(params: Params, value: str) -> None:
        setattr(params, name, value)

    return set_it


def _model(params: Params, value: str) -> None:
    params.model.path = value


def _mmproj(params: Params, value: str) -> None:
    params.mmproj.path = value


def _alias(params: Params, value: str) -> None:
    params.model_alias = {value}


def _host(params: Params, value: str) -> None:
    params.hostnames = [value]


def _gpu_layers(params: Params, value: str) -> None:
    params.n_gpu_layers = _GPU_LAYERS[value] if value in _GPU_LAYERS else int(value)


def _threads(params: Params, value: str) -> None:
    params.cpuparams.n_threads = int(value)
    if params.cpuparams_batch.n_threads < 0:
        params.cpuparams_batch.n_threads = int(value)


def _threads_batch(params: Params, value: str) -> None:
    params.cpuparams_batch.n_threads = int(value)


def _parallel(params: Params, value: str) -> None:
    params.n_parallel, params.kv_unified = int(value), False


def _flash_attention(params: Params, value: str) -> None:
    import xllamacpp

    kind = f"LLAMA_FLASH_ATTN_TYPE_{_FLASH[value]}"
    params.flash_attn_type = getattr(xllamacpp.llama_flash_attn_type, kind)


def _pooling(params: Params, value: str) -> None:
    import xllamacpp

    kinds = {
        kind.name.removeprefix("LLAMA_POOLING_TYPE_").lower(): kind
        for kind in xllamacpp.llama_pooling_type
    }
    params.pooling_type = kinds[value]


def _timeout(params: Params, value: str) -> None:
    params.timeout_read = params.timeout_write = int(value)


def _key_file(params: Params, value: str) -> None:
    lines = [line.strip() for line in Path(value).read_text().splitlines()]
    params.api_keys = [line for line in lines if line and not line.startswith("#")]


def _slot_save_path(params: Params, value: str) -> None:
    if not Path(value).is_dir():
        raise ValueError(f"not a directory: {value}")
    # llama.cpp joins it to the file's name as it is.
    params.slot_save_path = value if value.endswith("/") else f"{value}/"


def _cache_type(name: str) -> Setter:
    def set_it(params: Params, value: str) -> None:
        import xllamacpp

        kind = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{value.upper()}", None)
        if kind is None:
            raise ValueError(f"unsupported cache type: {value}")
        setattr(params, name, kind)

    return set_it


def _template_file(params: Params, value: str) -> None:
    params.chat_template = Path(value).read_text()


def _embeddings(params: Params) -> None:
    params.embedding = True


def _reranking(params: Params) -> None:
    params.embedding = True
    _pooling(params, "rank")


def _switch(name: str, value: bool) -> Callable[[Params], None]:
    def set_it(params: Params) -> None:
        setattr(params, name, value)

    return set_it


_FIELD_SETTERS: dict[str, Setter] = {
    "model": _model,
    "mmproj": _mmproj,
    "alias": _alias,
    "host": _host,
    "port": _integer("port"),
    "api_prefix": _text("api_prefix"),
    "ctx_size": _integer("n_ctx"),
    "gpu_layers": _gpu_layers,
    "threads": _threads,
    "threads_batch": _threads_batch,
    "threads_http": _integer("n_threads_http"),
    "parallel": _parallel,
    "flash_attn": _flash_attention,
    "pooling": _pooling,
    "api_key_file": _key_file,
    "timeout_seconds": _timeout,
}
_SETTERS: dict[str, Setter] = {
    flag: setter for field, setter in _FIELD_SETTERS.items() for flag in FIELD_FLAGS[field]
} | {
    "--slot-save-path": _slot_save_path,
    "--batch-size": _integer("n_batch"),
    "-b": _integer("n_batch"),
    "--ubatch-size": _integer("n_ubatch"),
    "-ub": _integer("n_ubatch"),
    "--cache-type-k": _cache_type("cache_type_k"),
    "-ctk": _cache_type("cache_type_k"),
    "--cache-type-v": _cache_type("cache_type_v"),
    "-ctv": _cache_type("cache_type_v"),
    "--cache-reuse": _integer("n_cache_reuse"),
    "--cache-ram": _integer("cache_ram_mib"),
    "-cram": _integer("cache_ram_mib"),
    "--chat-template": _text("chat_template"),
    "--chat-template-file": _template_file,
    "--verbosity": _integer("verbosity"),
    "--log-verbosity": _integer("verbosity"),
    "-lv": _integer("verbosity"),
}
_SWITCHES: dict[str, Callable[[Params], None]] = {
    flag: setter
    for field, setter in (("embeddings", _embeddings), ("reranking", _reranking))
    for flag in FIELD_FLAGS[field]
} | {
    "--no-warmup": _switch("warmup", value=False),
    "--warmup": _switch("warmup", value=True),
    "--jinja": _switch("use_jinja", value=True),
    "--no-jinja": _switch("use_jinja", value=False),
    "--metrics": _switch("endpoint_metrics", value=True),
    "--slots": _switch("endpoint_slots", value=True),
    "--no-slots": _switch("endpoint_slots", value=False),
    "--context-shift": _switch("ctx_shift", value=True),
    "--kv-unified": _switch("kv_unified", value=True),
    "-kvu": _switch("kv_unified", value=True),
    "--swa-full": _switch("swa_full", value=True),
}


if __name__ == "__main__":
    main()
