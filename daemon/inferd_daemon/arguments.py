"""The daemon's command line, and the configuration it means where there is no file."""

import argparse
from pathlib import Path

import msgspec

import inferd_proto

from .config import (
    BackendConfig,
    Config,
    HttpConfig,
    LibllamaConfig,
    MockConfig,
    OpenAICompatConfig,
    RouteConfig,
)

_EPILOG = """\
examples:
  inferd --demo                       the model that ships with inferd, no download
  inferd --model qwen3-8b.gguf        a GGUF file, served by llama.cpp in a worker process
  inferd --openai http://127.0.0.1:8080 --openai-model qwen3
                                      a server that you run, behind inferd's socket
  inferd --backend mock               no model at all: tok0 tok1 tok2 ...
  inferd --demo --http                the same, and the OpenAI API at http://127.0.0.1:8417/v1
  inferd                              as the configuration file says

Without --config the file is $INFERD_CONFIG, else $XDG_CONFIG_HOME/inferd/config.toml.
Stop it with Ctrl-C: running requests may finish. A second Ctrl-C stops at once.
"""


def parse_arguments(argv: list[str] | None = None) -> "argparse.Namespace":
    """Exits with 2 and a usage line where the words make no sense."""
    parser = argparse.ArgumentParser(
        prog="inferd",
        description="The inference daemon: serves models on a Unix socket, in the foreground.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration file (TOML)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--demo", action="store_true", help="serve the demo model as route demo")
    what.add_argument("--model", type=Path, metavar="FILE.gguf", help="serve this model")
    what.add_argument("--openai", metavar="URL", help="serve what this server serves")
    what.add_argument("--backend", choices=["mock"], help="serve without a model")
    parser.add_argument("--openai-model", metavar="NAME", help="model to ask of --openai")
    parser.add_argument("--socket", type=Path, metavar="PATH", help="where to listen")
    parser.add_argument(
        "--http", action="store_true", help="serve HTTP too, at 127.0.0.1:8417 or as [http] says"
    )
    parser.add_argument("--log-format", choices=["auto", "json", "human"])
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"])
    parser.add_argument(
        "--check-config", action="store_true", help="check the configuration and exit (0 or 1)"
    )
    parser.add_argument(
        "--preflight",
        action="store_true",
        help="check the configuration and the code, as an upgrade in place does, and exit (0 or 1)",
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print the effective configuration and exit"
    )
    parser.add_argument("--version", action="version", version=f"inferd {inferd_proto.__version__}")
    arguments = parser.parse_args(argv)
    if arguments.openai_model and not arguments.openai:
        parser.error("--openai-model needs --openai")
    if arguments.config and quick_config(arguments) is not None:
        parser.error("--config excludes --demo, --model, --openai and --backend")
    return arguments


def quick_config(arguments: "argparse.Namespace") -> Config | None:
    """The configuration that a flag alone describes: one backend, one route of the same name."""
    name: str
    backend: BackendConfig
    if arguments.demo:
        name, backend = "demo", LibllamaConfig(model="demo")
    elif arguments.model:
        name = arguments.model.stem
        backend = LibllamaConfig(model=str(arguments.model.absolute()), alias=name)
    elif arguments.openai:
        name = arguments.openai_model or "openai"
        backend = OpenAICompatConfig(base_url=arguments.openai, model=arguments.openai_model)
    elif arguments.backend == "mock":
        name, backend = "mock", MockConfig()
    else:
        return None
    return Config(
        default_route=name, backends={name: backend}, routes={name: RouteConfig(backends=[name])}
    )


def with_overrides(config: Config, arguments: "argparse.Namespace") -> Config:
    """`config` with what the command line says of the process itself."""
    given = {
        "socket": str(arguments.socket.absolute()) if arguments.socket else None,
        "log_format": arguments.log_format,
        "log_level": arguments.log_level,
    }
    daemon = msgspec.structs.replace(
        config.daemon, **{key: value for key, value in given.items() if value is not None}
    )
    http = HttpConfig() if arguments.http and config.http is None else config.http
    return msgspec.structs.replace(config, daemon=daemon, http=http)
