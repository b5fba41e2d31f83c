"""llama.cpp's server inside this process, by the xllamacpp wheel: parameters and loading.

Used by the worker only; the daemon never imports it. The engine listens on the Unix socket of its
parameters and on nothing else.
"""

import os
import resource
from pathlib import Path
from typing import Any, NoReturn

import xllamacpp

from .libllama_control import Boot

MEMORY_SLACK_BYTES = 2 * 1024**3
"""Stacks of threads that are reserved and never touched count against the limit as well."""


def load(boot: Boot) -> "xllamacpp.Server":
    """Load the model and start to serve it; returns when it answers.

    Raises RuntimeError when it does not load; llama.cpp has logged why to stderr. The caller's
    thread holds the interpreter's lock all the while.
    """
    if accelerator() == "cpu":
        limit_memory()
    return xllamacpp.Server(parameters(boot))


def parameters(boot: Boot) -> Any:  # noqa: ANN401 (xllamacpp has no types)
    """`boot` as llama.cpp's parameters."""
    params = xllamacpp.CommonParams()
    params.model.path = boot.model
    params.model_alias = {boot.alias}
    params.hostnames = [boot.socket_path]
    params.api_keys = [boot.key]
    params.n_ctx = boot.ctx_size
    params.n_parallel = boot.parallel
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


def limit_memory() -> None:
    """Let an allocation beyond what the machine has free fail at once.

    Linux would grant it, and end some process by SIGKILL when it is touched. Files that are
    mapped, as models are, do not count.
    """
    available = available_bytes(Path("/proc/meminfo").read_text())
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = available + MEMORY_SLACK_BYTES
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def available_bytes(meminfo: str) -> int:
    """Memory and swap that can be had, from the text of /proc/meminfo."""
    fields = dict(line.split(":", 1) for line in meminfo.splitlines() if ":" in line)
    kib = sum(int(fields[name].split()[0]) for name in ("MemAvailable", "SwapFree"))
    return kib * 1024


def stop_now(socket_path: str, status: int) -> NoReturn:
    """End this process at once, threads and all, and remove its socket.

    The engine's own shutdown waits for running requests, and can hang in it.
    """
    Path(socket_path).unlink(missing_ok=True)
    os._exit(status)
