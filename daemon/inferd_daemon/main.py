"""argv to configuration to a running daemon, and its exit status.

Exit status: 0 stopped as asked, 1 the configuration or the start failed (standard error says
why), 2 the command line makes no sense.
"""

# ruff: noqa: E402 (the imports that are made quicker come after what does it)

import os

from .lean_imports import LATE, PACK_VARIABLE, LeanImports, import_later

_lean_imports = LeanImports(os.environ)

import importlib
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec
import structlog
import trio

import inferd_daemon

from .app import serve
from .arguments import parse_arguments, quick_config, with_overrides
from .assembly import Unmet, assemble, look_around
from .config import (
    Config,
    Draft,
    Places,
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
from .supervision.processes.orphans import adopt_orphans
from .supervision.succession.handover import Handover
from .supervision.succession.reexec import (
    become_next,
    not_gone_over,
    read_handover,
    receive,
    signals_kept,
)

if not _lean_imports.hurried:
    for name in LATE:
        importlib.import_module(name)
_lean_imports.done()

if TYPE_CHECKING:
    from argparse import Namespace

_HINT = "no configuration: give --demo, --model FILE.gguf or --config FILE (see inferd --help)"
_NOT_THE_DAEMONS = {"inferd_daemon.__main__", "inferd_daemon.engines.libllama.server"}
"""The entry, and what loads llama.cpp: only workers do."""
_STDOUT, _STDERR = 1, 2
_log = structlog.get_logger(__name__)


def main(argv: list[str] | None = None) -> int:
    """The `inferd` command."""
    _hold_standard_streams()
    try:
        if _lean_imports.enclosed:
            # What the preflight has checked: the file may have been changed since, to the worse.
            config = msgspec.msgpack.decode(_lean_imports.enclosed, type=Config)
            _serve(config, look_around(config))
        else:
            _do(parse_arguments(argv))
    except OperatorError as error:
        return _explain([error])
    except BaseExceptionGroup as group:
        mistakes, rest = group.split(OperatorError)
        if mistakes is None or rest is not None:
            raise
        return _explain(_flat(mistakes))
    return 0


def _do(arguments: "Namespace") -> None:
    """Raises OperatorError, alone or in groups of nurseries."""
    draft = _draft(arguments)
    if arguments.print_config:
        print(render_config(with_overrides(draft.finish(), arguments)))
        return
    unmet = list(look_around(draft.sound))
    if arguments.check_config:
        draft.finish((path, message) for path, message, _ in unmet)
        print("configuration is valid")
        return
    config = draft.finish((path, message) for path, message, stops in unmet if stops)
    config = with_overrides(config, arguments)
    if arguments.preflight:
        _preflight(config)
        print("ready to take over")
        return
    _serve(config, unmet)


def _hold_standard_streams() -> None:
    """Who starts us with them closed must not find sockets of ours in their place.

    What is printed would go to a client.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name, number in (("stdout", _STDOUT), ("stderr", _STDERR)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


def _flat(group: BaseExceptionGroup[OperatorError]) -> Iterator[OperatorError]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _flat(each)
        else:
            yield each


def _explain(errors: Iterable[OperatorError]) -> int:
    for message in dict.fromkeys(map(str, errors)):
        print(f"inferd: {message}", file=sys.stderr)
    return 1


def _serve(config: Config, unmet: Iterable[Unmet]) -> None:
    configure(config.daemon.log_format, config.daemon.log_level)
    for path, message, _ in unmet:
        _log.warning("not there yet", key=dotted(path), reason=message)
    _run(config)


def _run(config: Config) -> None:
    """Serve, in as many selves as it takes; one that cannot be replaced goes on."""
    handover = receive(os.environ)
    if handover is None:
        adopt_orphans()
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
    checked gets it, with the configuration: what is installed may change before it is loaded.
    """
    here = {*sys.modules}
    if config.http is not None:
        importlib.import_module("inferd_daemon.fronts.http.stack")
    for name in LATE:
        import_later(name)
    later = sys.modules.keys() - here
    import pkgutil

    for module in pkgutil.walk_packages(inferd_daemon.__path__, "inferd_daemon."):
        if module.name not in _NOT_THE_DAEMONS:
            importlib.import_module(module.name)
    handover = read_handover(os.environ)
    places = find_places(config, os.environ, os.getuid())
    if handover is not None and (reason := handover.misfit(places)):
        raise OperatorError(reason)
    check_free(config.http, [] if handover is None else handover.files.http)
    trio.run(_rehearse, config, places, handover)
    wanted = os.environ.get(PACK_VARIABLE)
    if wanted is not None:
        with open(int(wanted), "wb", closefd=False) as file:
            file.write(_lean_imports.pack(later, msgspec.msgpack.encode(config)))


async def _rehearse(config: Config, places: Places, handover: Handover | None) -> None:
    """Raises OperatorError where the daemon could not be put together."""
    assemble(config, places, handover, rehearsal=True)


def _draft(arguments: "Namespace") -> Draft:
    """Raises OperatorError where there is none, or it cannot be read."""
    quick = quick_config(arguments)
    if quick is not None:
        return draft_of(quick, "command line")
    path = arguments.config or find_config_file(os.environ)
    if path is None:
        raise OperatorError(_HINT)
    return read_draft(path)
