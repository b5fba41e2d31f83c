"""llama.cpp's server inside this process, by the xllamacpp wheel: parameters and loading.

Used by the worker only; the daemon never imports it. The engine listens on the Unix socket of its
parameters and on nothing else.
"""

import os
from pathlib import Path
from typing import Any, NoReturn

import xllamacpp

from ..machine_memory import refuse_beyond_free, total_bytes
from .control import Boot

MAX_WHOLE_TOKENS = 8192
"""A text to embed or rank is computed in one piece; the buffers for it grow with its square."""
SPARE_HTTP_THREADS = 16
"""Each open connection holds a thread to its end, an idle one for some seconds more. These are for
health checks, and for connections that were given up a moment ago."""


def load(boot: Boot) -> "xllamacpp.Server":
    """Load the model and start to serve it; returns when it answers.

    Raises RuntimeError when it does not load; llama.cpp has logged why to stderr. The caller's
    thread holds the interpreter's lock all the while.
    """
    params = parameters(boot)
    if accelerator() == "cpu":
        _refuse_too_large(boot.model)
        refuse_beyond_free()
        # Fitting the model to a GPU's memory is a dry run of the load, for nothing here.
        params.fit_params = False
        # Between batches llama.cpp sees that a request was abandoned. Larger ones than it computes
        # in one piece pay with several devices only.
        params.n_batch = params.n_ubatch
    return xllamacpp.Server(params)


def _refuse_too_large(model: str) -> None:
    """Raises RuntimeError for a file that this machine could only ever read piece by piece."""
    path, total = Path(model), total_bytes()
    size = path.stat().st_size if path.is_file() else 0
    if size > total:
        raise RuntimeError(
            f"insufficient memory: the model file has {size / 2**30:.1f} GiB, "
            f"this machine {total / 2**30:.1f} GiB"
        )


def parameters(boot: Boot) -> Any:  # noqa: ANN401 (xllamacpp has no types)
    """`boot` as llama.cpp's parameters."""
    params = xllamacpp.CommonParams()
    params.model.path = boot.model
    params.model_alias = {boot.alias}
    params.hostnames = [boot.socket_path]
    params.api_keys = [boot.key]
    params.n_ctx = boot.ctx_size
    params.n_parallel = boot.parallel
    params.n_threads_http = boot.parallel + SPARE_HTTP_THREADS
    # One text may fill the whole context; else each slot would get its share and no more.
    params.kv_unified = not (boot.embeddings or boot.reranking)
    params.n_gpu_layers = boot.gpu_layers
    params.verbosity = boot.verbosity
    params.ui = False
    if boot.mmproj is not None:
        params.mmproj.path = boot.mmproj
    if boot.threads:
        params.cpuparams.n_threads = boot.threads
    if boot.threads_batch or boot.threads:
        params.cpuparams_batch.n_threads = boot.threads_batch or boot.threads
    params.embedding = boot.embeddings or boot.reranking
    if params.embedding:
        # llama.cpp's 512 would refuse most of what the models can take.
        own = min(boot.ctx_size // boot.parallel, MAX_WHOLE_TOKENS)
        params.n_batch = params.n_ubatch = max(params.n_batch, own)
    pooling = "rank" if boot.reranking else boot.pooling
    if pooling is not None:
        kind = f"LLAMA_POOLING_TYPE_{pooling.upper()}"
        params.pooling_type = getattr(xllamacpp.llama_pooling_type, kind)
    return params


def accelerator() -> str:
    """ "cpu", or the kind of the first other device: "cuda", "vulkan", …"""
    names = [str(device["name"]) for device in xllamacpp.get_device_info()]
    other = [name for name in names if not name.upper().startswith("CPU")]
    # Devices are numbered: CUDA0.
    return other[0].rstrip("0123456789").lower() if other else "cpu"


def version() -> str:
    """The engine's version, for `status`."""
    return f"xllamacpp {xllamacpp.__version__}"


def stop_now(socket_path: str, status: int) -> NoReturn:
    """End this process at once, threads and all, and remove its socket.

    The engine's own shutdown waits for running requests, and can hang in it.
    """
    Path(socket_path).unlink(missing_ok=True)
    os._exit(status)
