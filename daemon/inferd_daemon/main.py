"""argv to configuration to a running daemon, and its exit status.

Exit status: 0 stopped as asked, 1 the configuration or the start failed (standard error says
why), 2 the command line makes no sense.
"""

import os
import sys
from argparse import Namespace

import trio

from .app import serve
from .arguments import parse_arguments, quick_config, with_overrides
from .config import Config, find_config_file, load_config, render_config
from .errors import OperatorError
from .log import configure

_HINT = "no configuration: give --demo, --model FILE.gguf or --config FILE (see inferd --help)"


def main(argv: list[str] | None = None) -> int:
    """The `inferd` command."""
    arguments = parse_arguments(argv)
    try:
        config = with_overrides(_configuration(arguments), arguments)
        if arguments.print_config:
            print(render_config(config))
            return 0
        if arguments.check_config:
            print("configuration is valid")
            return 0
        configure(config.daemon.log_format, config.daemon.log_level)
        trio.run(serve, config)
    except OperatorError as error:
        print(f"inferd: {error}", file=sys.stderr)
        return 1
    return 0


def _configuration(arguments: Namespace) -> Config:
    """Raises OperatorError where there is none, or it is wrong."""
    quick = quick_config(arguments)
    if quick is not None:
        return quick
    path = arguments.config or find_config_file(os.environ)
    if path is None:
        raise OperatorError(_HINT)
    return load_config(path)
