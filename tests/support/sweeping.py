"""Deletes what a test leaves on the broker, so that the last test of a run finds it as quiet as the first."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

_ASK_S = 20.0
_EMPTY_S = 15.0
"""A group whose members have just left is not yet empty; after so long it is left as it is."""


class Sweeper:
    """Deletes the topics and groups of namespaces on a thread of its own: no test waits for it.

    Parameters
    ----------
    servers : str
        Where.
    """

    def __init__(self, servers: str) -> None:
        self._admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
        self._namespaces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)
        self._thread.start()
        self.failures: list[str] = []

    def sweep(self, namespace: str) -> None:
        """Delete what is there of a namespace, soon."""
        self._namespaces.put(namespace)

    def close(self) -> None:
        """Delete what is still to be deleted; then end."""
        self._namespaces.put(None)
        self._thread.join(60)

    def _run(self) -> None:
        while (namespace := self._namespaces.get()) is not None:
            try:
                self._topics(namespace)
                self._groups(namespace)
            except KafkaException as error:  # a test may have ended the broker: nothing is left of it then
                self.failures.append(f"{namespace}: {error}")

    def _topics(self, namespace: str) -> None:
        found = [name for name in self._admin.list_topics(timeout=_ASK_S).topics if name.startswith(namespace)]
        for future in (self._admin.delete_topics(found) if found else {}).values():
            future.result(_ASK_S)

    def _groups(self, namespace: str) -> None:
        groups = self._admin.list_consumer_groups().result(_ASK_S).valid
        left = [one.group_id for one in groups if one.group_id.startswith(namespace)]
        deadline = time.monotonic() + _EMPTY_S
        while left:
            deleted = self._admin.delete_consumer_groups(left)
            left = [name for name, future in deleted.items() if _is_full(future)]
            if time.monotonic() > deadline:
                return
            time.sleep(0.5 if left else 0)  # the broker tells nobody that a group is empty


def _is_full(deleted: Future[None]) -> bool:
    error = deleted.exception(_ASK_S)
    return isinstance(error, KafkaException) and error.args[0].code() == KafkaError.NON_EMPTY_GROUP
