"""argv to configuration to a running daemon, and its exit status.

Exit status: 0 stopped as asked, 1 the configuration or the start failed (standard error says
why), 2 the command line makes no sense.
"""

# ruff: noqa: E402 (the imports that are made quicker come after what does it)

import os

from .lean_imports import PACK_VARIABLE, LeanImports

_lean_imports = LeanImports(os.environ)

import importlib
import sys
from argparse import Namespace

import structlog
import trio

import inferd_daemon

from .app import serve
from .arguments import parse_arguments, quick_config, with_overrides
from .assembly import look_around
from .config import (
    Config,
    Draft,
    draft_of,
    find_config_file,
    find_places,
    read_draft,
    render_config,
)
from .config.checking import dotted
from .errors import OperatorError
from .fronts.http.doors import check_free
from .log import configure
from .orders import SIGNALS
from .supervision.succession.reexec import (
    become_next,
    not_gone_over,
    read_handover,
    receive,
    signals_kept,
)

_lean_imports.done()

_HINT = "no configuration: give --demo, --model FILE.gguf or --config FILE (see inferd --help)"
_NOT_THE_DAEMONS = {"inferd_daemon.__main__", "inferd_daemon.engines.libllama_server"}
"""The entry, and what loads llama.cpp: only workers do."""
_log = structlog.get_logger(__name__)


def main(argv: list[str] | None = None) -> int:
    """The `inferd` command."""
    arguments = parse_arguments(argv)
    try:
        draft = _draft(arguments)
        if arguments.print_config:
            print(render_config(with_overrides(draft.finish(), arguments)))
            return 0
        unmet = list(look_around(draft.sound))
        if arguments.check_config:
            draft.finish((path, message) for path, message, _ in unmet)
            print("configuration is valid")
            return 0
        config = draft.finish((path, message) for path, message, stops in unmet if stops)
        config = with_overrides(config, arguments)
        if arguments.preflight:
            _preflight(config)
            print("ready to take over")
            return 0
        configure(config.daemon.log_format, config.daemon.log_level)
        for path, message, _ in unmet:
            _log.warning("not there yet", key=dotted(path), reason=message)
        _run(config)
    except OperatorError as error:
        print(f"inferd: {error}", file=sys.stderr)
        return 1
    return 0


def _run(config: Config) -> None:
    """Serve, in as many selves as it takes; one that cannot be replaced goes on."""
    handover = receive(os.environ)
    with signals_kept(SIGNALS) as kept:
        while (handover := trio.run(serve, config, None, handover)) is not None:
            try:
                become_next(handover, kept)
            except OSError as error:
                _log.error("upgrade failed, going on", reason=error.strerror)
                handover = not_gone_over(handover)


def _preflight(config: Config) -> None:
    """Whether this code could serve `config`, and go on from what the environment hands over.

    Raises OperatorError, or whatever the code does where it is broken. Who wants the code that was
    checked gets it: what is installed may change before it is loaded.
    """
    import pkgutil

    if config.http is not None:
        importlib.import_module("inferd_daemon.fronts.http.stack")
    needed = list(sys.modules)
    for module in pkgutil.walk_packages(inferd_daemon.__path__, "inferd_daemon."):
        if module.name not in _NOT_THE_DAEMONS:
            importlib.import_module(module.name)
    handover = read_handover(os.environ)
    places = find_places(config, os.environ, os.getuid())
    if handover is not None and (reason := handover.misfit(places)):
        raise OperatorError(reason)
    check_free(config.http, [] if handover is None else handover.files.http)
    wanted = os.environ.get(PACK_VARIABLE)
    if wanted is not None:
        with open(int(wanted), "wb", closefd=False) as file:
            file.write(_lean_imports.pack(needed))


def _draft(arguments: Namespace) -> Draft:
    """Raises OperatorError where there is none, or it cannot be read."""
    quick = quick_config(arguments)
    if quick is not None:
        return draft_of(quick, "command line")
    path = arguments.config or find_config_file(os.environ)
    if path is None:
        raise OperatorError(_HINT)
    return read_draft(path)
