"""Topics and groups are made and checked here, before anything reads or writes them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it exports them without saying so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from easyremote.clock import monotonic_s
from easyremote.errors import BrokerUnavailable, TopicError
from easyremote.threads import LongThread
from easyremote.topics.catalog import TopicDeclaration
from easyremote.topics.connection import COORDINATOR_LIMIT_S, confluent_config
from easyremote.topics.retry import JUST_MADE, NO_LEADER, ask, passes

if TYPE_CHECKING:
    from easyremote.settings import Settings

__all__ = ["Held", "TopicAdmin", "answers", "wait_for_ends"]

log = structlog.get_logger(__name__)

_TIMEOUT_S = 15.0
_ENDS_S = 2.0
_ASKED_S = 2.0
_NOT_THERE = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_EXCEPTION, KafkaError.TOPIC_AUTHORIZATION_FAILED}
)
_NO_ANSWER = frozenset(
    {KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError.REQUEST_TIMED_OUT}  # noqa: SLF001
)
_AGAIN_S = 0.5
_KNOWN_S = 30.0
_KNOWN_AGAIN_S = 0.02
_SAY_EVERY = 20

Answer = TypeVar("Answer")
Held = Mapping[str, frozenset[int]]
"""The numbers of the partitions that each member of a group holds, by the id of its client."""


class TopicAdmin:
    """Creates what is declared and names what differs.

    Parameters
    ----------
    settings : Settings
        Where the broker is, the namespace and the replication factor.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._where = settings.bootstrap_servers()
        self._client = AdminClient(confluent_config(settings))

    def ensure(self, declared: Iterable[TopicDeclaration]) -> list[str]:
        """Create the declared topics that are missing and check the others.

        Returns
        -------
        list of str
            Names of the topics that were created.

        Raises
        ------
        TopicError
            If a topic differs from its declaration; every difference is named.
        BrokerUnavailable
            If no broker answers within 15 s.
        """
        wanted = {self._settings.namespace + topic.name: topic for topic in declared}
        existing = self.partitions()
        missing = {name: topic for name, topic in wanted.items() if name not in existing}
        created = self._create(missing)
        if missing:
            self._await_known(missing)
            existing = self.partitions()
        self._check(
            {name: topic for name, topic in wanted.items() if name in existing and name not in created}, existing
        )
        return created

    def answers(self, timeout_s: float) -> bool:
        """Say whether a broker answers within `timeout_s`."""
        try:
            return bool(self._client.list_topics(timeout=timeout_s).brokers)
        except KafkaException:
            return False

    def partitions(self) -> dict[str, int]:
        """Return the number of partitions of every topic of the broker."""
        metadata = self._ask("to know the topics", lambda: self._client.list_topics(timeout=_TIMEOUT_S))
        return {name: len(topic.partitions) for name, topic in metadata.topics.items()}

    def partitions_of(self, topics: Iterable[str], timeout_s: float = _ASKED_S) -> dict[str, int | None]:
        """Return the number of partitions of some topics, by their full names; None of one that is not there.

        Where the broker would make a topic that is asked for, it is not made by this.

        Raises
        ------
        BrokerUnavailable
            If no broker answers in time. A topic of which it cannot say anything just now is left out.
        """
        asked = TopicCollection(list(topics))
        found: dict[str, int | None] = {}
        for name, future in self._client.describe_topics(asked, request_timeout=timeout_s).items():
            try:
                found[name] = len(future.result(timeout_s + 1).partitions)
            except TimeoutError as error:
                raise BrokerUnavailable(f"no Kafka answers within {timeout_s:g} s") from error
            except KafkaException as error:
                code = error.args[0].code()
                if code in _NOT_THERE:
                    found[name] = None
                elif code in _NO_ANSWER:
                    raise BrokerUnavailable(f"no Kafka answers within {timeout_s:g} s ({error})") from error
        return found

    def create(self, topic: str, partitions: int) -> bool:
        """Create a topic with the broker's defaults, by its full name; say False if it is there already.

        Raises
        ------
        TopicError
            If it cannot be created.
        """
        new = NewTopic(topic, num_partitions=partitions, replication_factor=self._settings.replication_factor)
        future = self._client.create_topics([new], operation_timeout=_TIMEOUT_S)[topic]
        try:
            future.result(_TIMEOUT_S)
        except (KafkaException, TimeoutError) as error:
            if isinstance(error, KafkaException) and error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            raise TopicError(f"topic {topic} cannot be created: {error}") from error
        self._await_known([topic])
        return True

    def ends(self, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Return the offset after the last record of each partition, given as (full name of the topic, number).

        Raises
        ------
        TopicError
            If one cannot be told within 15 s.
        """
        latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # the stub leaves it open
        asked = {TopicPartition(topic, number): latest for topic, number in partitions}

        def ends() -> dict[tuple[str, int], int]:
            futures = self._client.list_offsets(asked, request_timeout=_TIMEOUT_S) if asked else {}
            try:
                return {(one.topic, one.partition): told.result(_TIMEOUT_S).offset for one, told in futures.items()}
            except (KafkaException, TimeoutError):
                # After a restart of its broker a client may ask by the epoch that it knew, and never learn another one.
                self._renew()
                raise

        try:
            # Not for long: who waits longer asks again, and may be told to stop in between.
            return self._ask("to know where partitions end", ends, NO_LEADER, _ENDS_S)
        except KafkaException as error:
            raise TopicError(f"the ends of partitions cannot be read: {error}") from error

    def ask_held(self, group: str, told: Callable[[Held | TopicError], None]) -> None:
        """Have `told` called, on another thread, with who holds which partitions in a group; nobody: no group.

        Of whichever topics the partitions are. Or it is told why that cannot be known. While the group's coordinator is
        away nothing is told, and of some questions never.
        """

        def done(future: Future[Any]) -> None:  # Any: the package's own description
            held: dict[str, frozenset[int]] = {}
            try:
                for one in future.result().members:
                    numbers = frozenset(place.partition for place in one.assignment.topic_partitions)
                    held[one.client_id] = held.get(one.client_id, frozenset()) | numbers
            except KafkaException as error:
                code = error.args[0].code()
                if code == KafkaError._TIMED_OUT:  # noqa: SLF001
                    # Not on this thread, which is the client's own.
                    LongThread(self._renew, "admin").start()
                if code != KafkaError.GROUP_ID_NOT_FOUND:
                    told(TopicError(f"who is in group {group} cannot be read: {error}"))
                    return
            told(held)

        asked = self._client.describe_consumer_groups([group], request_timeout=COORDINATOR_LIMIT_S)
        asked[group].add_done_callback(done)

    def set_group_session(self, group: str) -> None:
        """Give a group the session and heartbeat of the settings, so that a dead member is replaced fast.

        With the new consumer protocol (KIP-848) these belong to the group, not to the client.
        """
        resource = ConfigResource(ResourceType.GROUP, group)
        for name, value_ms in (
            ("consumer.session.timeout.ms", self._settings.group_session_ms),
            ("consumer.heartbeat.interval.ms", self._settings.group_heartbeat_ms),
        ):
            resource.add_incremental_config(
                ConfigEntry(name, str(value_ms), incremental_operation=AlterConfigOpType.SET)
            )
        try:
            self._ask(
                f"to give group {group} its session",
                lambda: self._client.incremental_alter_configs([resource])[resource].result(timeout=_TIMEOUT_S),
            )
        except KafkaException as error:
            raise TopicError(
                f"group {group} cannot have a session of {self._settings.group_session_ms} ms ({error}): "
                "the broker needs group.consumer.min.session.timeout.ms and "
                "group.consumer.min.heartbeat.interval.ms at or below the settings"
            ) from error

    def _renew(self) -> None:
        self._client = AdminClient(confluent_config(self._settings))

    async def ensure_async(self, declared: Iterable[TopicDeclaration]) -> list[str]:
        """Do as `ensure` does, off the event loop."""
        return await asyncio.to_thread(self.ensure, list(declared))

    def _ask(
        self,
        what: str,
        request: Callable[[], Answer],
        also: Container[int] = frozenset(),
        within_s: float | None = None,
    ) -> Answer:
        self._client.poll(0)  # what it has to say, nobody hears otherwise
        within_s = _TIMEOUT_S if within_s is None else within_s
        return ask(what, request, where=self._where, within_s=within_s, also=also)

    def _create(self, missing: dict[str, TopicDeclaration]) -> list[str]:
        if not missing:
            return []
        new = [
            NewTopic(
                name,
                num_partitions=topic.partitions,
                replication_factor=self._settings.replication_factor,
                config=topic.config(),
            )
            for name, topic in missing.items()
        ]
        created: list[str] = []

        def create() -> None:
            passing: KafkaException | None = None
            for name, future in self._client.create_topics(new, operation_timeout=_TIMEOUT_S).items():
                try:
                    future.result(timeout=_TIMEOUT_S)
                    created.append(name)
                except KafkaException as error:
                    # Another process that starts at the same moment has made it, or the time before this one: that is
                    # what was wanted.
                    if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                        continue
                    if not passes(error):
                        raise TopicError(f"topic {name} cannot be created: {error}") from error
                    passing = error
            if passing is not None:
                raise passing

        self._ask("to create topics", create)
        return created

    def _await_known(self, topics: Iterable[str]) -> None:
        # The controller has them; the broker that is asked next hears of it a moment later, and a busy one after
        # seconds, in which whoever was told that they are there would be told that they are not.
        pause, until_s = threading.Event(), monotonic_s() + _KNOWN_S
        left = list(topics)
        while left := [name for name, number in self._found(left).items() if number is None]:
            if monotonic_s() > until_s:
                log.warning("the broker does not know yet of topics that were made", topics=left, after_s=_KNOWN_S)
                return
            pause.wait(_KNOWN_AGAIN_S)

    def _found(self, topics: list[str]) -> dict[str, int | None]:
        return self._ask("to know the topics that were made", lambda: self.partitions_of(topics, _TIMEOUT_S))

    def _check(self, declared: dict[str, TopicDeclaration], partitions: dict[str, int]) -> None:
        differences = []
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in declared]

        def described() -> dict[str, Any]:  # Any: the stub has another type for where a value is from
            futures: dict[ConfigResource, Any] = self._client.describe_configs(resources) if resources else {}
            return {resource.name: future.result(timeout=_TIMEOUT_S) for resource, future in futures.items()}

        for name, actual in self._ask("to know how topics are kept", described, JUST_MADE).items():
            topic = declared[name]
            if partitions[name] != topic.partitions:
                differences.append(f"{name}: partitions {partitions[name]}, declared {topic.partitions}")
            for key, value in topic.config().items():
                entry = actual[key]
                if entry.value != value:
                    origin = "" if entry.source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value else " (broker default)"
                    differences.append(f"{name}: {key}={entry.value}{origin}, declared {value}")
        if differences:
            raise TopicError(
                "topics differ from their declarations: "
                + "; ".join(differences)
                + ". Alter them to what is declared, or use another EASYREMOTE_NAMESPACE"
            )


def wait_for_ends(
    admin: TopicAdmin, partitions: Sequence[tuple[str, int]], stopping: threading.Event
) -> dict[tuple[str, int], int]:
    """Return the ends of partitions as `TopicAdmin.ends` does, however long the broker is away; none if this stops."""
    tries = 0
    while not stopping.is_set():
        try:
            return admin.ends(partitions)
        except TopicError as error:
            if tries % _SAY_EVERY == 0:
                log.warning("where topics end is not known yet; asking on", error=str(error))
            tries += 1
            stopping.wait(_AGAIN_S)
    return {}


def answers(bootstrap_servers: str, timeout_s: float) -> bool:
    """Say whether a broker that asks for no credentials answers at an address within `timeout_s`."""
    client = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    try:
        return bool(client.list_topics(timeout=timeout_s).brokers)
    except KafkaException:
        return False
