"""Which flags of llama-server belong to which field of a boot spec, and which are refused.

Data only. A flag that a field owns may not stand in `extra_args`, under any of its spellings;
neither may one that would put a secret in argv, fetch from the network, hide the log, run
commands, or turn the server into a router.
"""

from itertools import pairwise

FIELD_FLAGS: dict[str, tuple[str, ...]] = {
    "model": ("--model", "-m"),
    "mmproj": ("--mmproj", "-mm"),
    "alias": ("--alias", "-a"),
    "host": ("--host",),
    "port": ("--port",),
    "api_prefix": ("--api-prefix",),
    "ctx_size": ("--ctx-size", "-c"),
    "gpu_layers": ("--gpu-layers", "--n-gpu-layers", "-ngl"),
    "threads": ("--threads", "-t"),
    "threads_batch": ("--threads-batch", "-tb"),
    "threads_http": ("--threads-http",),
    "parallel": ("--parallel", "-np"),
    "flash_attn": ("--flash-attn", "-fa"),
    "embeddings": ("--embeddings", "--embedding"),
    "reranking": ("--reranking", "--rerank"),
    "pooling": ("--pooling",),
    "api_key": ("--api-key",),
    "api_key_file": ("--api-key-file",),
    "timeout_seconds": ("--timeout", "-to"),
}
"""Of each field the spelling that is rendered comes first."""

_SECRET = "it would put a secret into argv"
_NETWORK = "runtimes load local files only; pull the model first"
_ROUTER = "it belongs to the router mode, which the daemon does not use"
_COMMANDS = "it lets the server run commands or reach other services"
_LOG = "the daemon reads the log"
_DAEMON = "the daemon sets it itself"
_EXITS = "the server would print and exit"
_TLS = "runtimes are reached over a Unix socket or loopback without TLS"

_REFUSED: dict[str, tuple[str, ...]] = {
    _SECRET: ("--hf-token", "-hft", "--mcp-servers-json"),
    _NETWORK: (
        "--model-url", "-mu", "--docker-repo", "-dr", "--hf-repo", "-hf", "-hfr", "--hf-file",
        "-hff", "--mmproj-url", "-mmu", "--hf-repo-draft", "-hfd", "-hfrd", "--spec-draft-hf",
        "--hf-repo-v", "-hfv", "-hfrv", "--hf-file-v", "-hffv", "--embd-gemma-default",
        "--fim-qwen-1.5b-default", "--fim-qwen-3b-default", "--fim-qwen-7b-default",
        "--fim-qwen-7b-spec", "--fim-qwen-14b-spec", "--fim-qwen-30b-default",
        "--gpt-oss-20b-default", "--gpt-oss-120b-default", "--vision-gemma-4b-default",
        "--vision-gemma-12b-default",
    ),
    _ROUTER: (
        "--models-dir", "--models-preset", "--models-max", "--models-autoload",
        "--no-models-autoload",
    ),
    _COMMANDS: (
        "--tools", "--tools-runtime", "--mcp-servers-config", "--ui-mcp-proxy",
        "--webui-mcp-proxy", "--agent", "-ag", "--rpc",
    ),
    _LOG: ("--log-disable", "--log-file", "--log-prompts-dir"),
    _DAEMON: ("--slot-save-path", "--reuse-port"),
    _EXITS: (
        "--help", "-h", "--usage", "--version", "--list-devices", "--cache-list", "-cl",
        "--completion-bash", "--license",
    ),
    _TLS: ("--ssl-key-file", "--ssl-cert-file"),
}  # fmt: skip

OWNER = {flag: field for field, flags in FIELD_FLAGS.items() for flag in flags}
REFUSED = {flag: why for why, flags in _REFUSED.items() for flag in flags}

NO_VALUE = {"embeddings", "reranking"}
"""Fields that are rendered as a bare flag where true, and not at all where false."""


def spelled(argument: str) -> str:
    """The flag in an argument, without `=value`; `--a_b` is `--a-b`, as the server reads it."""
    flag = argument.partition("=")[0]
    return flag.replace("_", "-") if flag.startswith("--") else flag


def option(arguments: list[str], *spellings: str) -> str | None:
    """The value behind the last of `spellings` in `arguments`, as the server would read it."""
    found = None
    for flag, value in pairwise(arguments):
        if spelled(flag) in spellings:
            found = value
    return found
