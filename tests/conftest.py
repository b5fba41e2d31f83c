"""What holds for every test: how properties are checked, and which signals are heard."""

import signal

from hypothesis import settings

# A machine that is busy for a moment is no finding. Each run looks at the same examples;
# `--hypothesis-profile=search` looks for others.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None)
settings.load_profile("steady")

# Who runs the tests in the background of a script, or under nohup, has them ignored, and every
# process that a test starts would ignore them as well.
for _number, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)
