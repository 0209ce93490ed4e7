"""A request to stop: SIGINT, SIGTERM and SIGHUP are noted, and the training ends where nothing is lost."""

import logging
import os
import shlex
import signal
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import click

from ltpipe.config.shell import typed

log = logging.getLogger("ltpipe.training")
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Stopped(SystemExit):
    """A signal ended the training, and it was said what was kept; the code is 128 + the signal's number.

    No Exception: those that run the training would take it for a fault, and add advice of their own.
    """


class Signals:
    """A context in which the first signal is only noted, and the second ends the process at once.

    Outside the main thread, where Python sets no handlers, nothing changes. A signal that was ignored before (nohup)
    stays so.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in SIGNALS}
            # None: a handler that Python did not set, and could not restore
            self._before = {n: handler for n, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}
            for number in self._before:
                signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.received = signal.Signals(number)
        # written directly: the signal may have come in the middle of a log line, when the log's buffer is in use
        os.write(
            2, f"{self.received.name}: the step is finished and kept first; a second signal ends at once\n".encode()
        )

    def stopped(self, name: str, kept: str) -> Stopped:
        """Say what was kept of a training and how it goes on; return what ends the process, to be raised."""
        assert self.received is not None, "no signal came"
        log.warning("%s: %s: kept %s. To go on: %s", name, self.received.name, kept, command_again())
        return Stopped(128 + self.received)


def spare_worker(_: int) -> None:
    """Let a worker process live when its group is told to stop: the training needs it to finish the step.

    The training ends its workers; if it dies, torch's watchdog does. A second SIGTERM is obeyed, so that a worker that
    hangs can be ended.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _obey_from_now_on)


def _obey_from_now_on(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)


def command_again() -> str:
    """Return the command that goes on with this training: the same one, or the one that started it."""
    if "DVC_STAGE" in os.environ:  # set by DVC for the commands of its stages
        return typed("dvc repro")
    context = click.get_current_context(silent=True)
    if context is None:
        return "the same command"
    program = Path(str(context.find_root().info_name))
    return typed(f"{program if ' ' in program.name else program.name} {shlex.join(sys.argv[1:])}")
