"""Threads that call one function all the time and keep every reply."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from easyremote import CallOptions, Client
from easyremote.settings import Settings
from easyremote.topics.records import Reply

OPTIONS = CallOptions(timeout_s=60)
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Answered:
    """What was asked, and the reply."""

    argument: str
    reply: Reply


class Callers:
    """Four threads, two of them through the router; each asks for every argument in turn.

    Parameters
    ----------
    settings : Settings
        Where.
    function : str
        Which function.
    arguments : sequence of str
        Its argument, one for each call.
    """

    def __init__(self, settings: Settings, function: str, arguments: Sequence[str]) -> None:
        self.answered: list[Answered] = []
        self.errors: list[BaseException] = []
        self._function = function
        self._arguments = arguments
        self._came = threading.Condition()
        self._stopping = threading.Event()
        self._clients = [Client(settings), Client(settings, direct=True)]
        self._threads = [threading.Thread(target=self._run, args=(one,)) for one in self._clients * 2]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        for client in self._clients:
            client.close()

    @property
    def replies(self) -> list[Reply]:
        """Every reply so far, in the order in which they came."""
        return [one.reply for one in self.answered]

    def await_version(self, version: str, calls: int = 1) -> None:
        """Wait until so many calls are answered by a version."""

        def is_so() -> bool:
            return sum(one.model_version == version for one in self.replies) >= calls

        with self._came:
            assert self._came.wait_for(is_so, PATIENCE_S), f"{version} answered too few calls: {self.errors}"

    def await_more(self, calls: int) -> None:
        """Wait for so many more replies."""
        enough = len(self.answered) + calls
        with self._came:
            assert self._came.wait_for(lambda: len(self.answered) >= enough, PATIENCE_S), self.errors

    def _run(self, client: Client) -> None:
        try:
            for argument in itertools.cycle(self._arguments):
                if self._stopping.is_set():
                    return
                reply = client.reply(self._function, argument, options=OPTIONS)
                with self._came:
                    self.answered.append(Answered(argument, reply))
                    self._came.notify_all()
        except BaseException as error:  # noqa: BLE001  # the test looks at it
            self.errors.append(error)
