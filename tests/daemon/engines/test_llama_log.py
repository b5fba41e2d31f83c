"""What llama.cpp said before an end is in the log, however late the thread that writes it is."""

import os
import subprocess
import sys
from pathlib import Path

CHILD = r"""
import os, subprocess, sys, time
import xllamacpp
from inferd_daemon.engines import llama_log

def load(name):
    params = xllamacpp.CommonParams()
    params.model.path, params.hostnames, params.fit_params = name, [name + ".sock"], False
    try:
        xllamacpp.Server(params)
    except RuntimeError:
        return
    raise SystemExit("that loaded")

load("first")
llama_log.flush()
# The thread is there. From now on it gets what others leave: nothing, while one of them spins.
cpu = {min(os.sched_getaffinity(0))}
for task in map(int, os.listdir("/proc/self/task")):
    os.sched_setaffinity(task, cpu)
    if task != os.getpid():
        os.sched_setscheduler(task, os.SCHED_IDLE, os.sched_param(0))
busy = "import time\nwhile time.process_time() < 60: pass"
spin = subprocess.Popen([sys.executable, "-c", busy])
time.sleep(0.2)
load("second")
if sys.argv[1] == "flush":
    llama_log.flush()
spin.kill()
os._exit(0)
"""


def said(directory: Path, what: str) -> str:
    """What a process logged that failed to load two models, and went at once."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, what],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return done.stderr


def test_what_was_logged_is_written_before_the_end(tmp_path: Path) -> None:
    log = said(tmp_path, "flush")
    assert "failed to load model, 'first'" in log
    assert "failed to load model, 'second'" in log


def test_without_the_engine_there_is_nothing_to_do() -> None:
    script = "from inferd_daemon.engines import llama_log; llama_log.flush()"
    subprocess.run([sys.executable, "-c", script], timeout=100, check=True)
