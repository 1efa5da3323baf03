"""What happened to every call of a test: told by its callers, by the topics, and by the functions that ran."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from easyremote.inference.client import CallFuture
from easyremote.settings import Settings
from easyremote.topics.records import Reply, decode_reply
from easyremote.topics.wire import CORRELATION_ID, headers_of

DRAIN_S = 60.0


@dataclass
class Ended:
    """How a call ended for its caller: a reply, or the client's own error, and when."""

    at_s: float
    reply: Reply | None
    error: BaseException | None

    @property
    def is_ok(self) -> bool:
        return self.reply is not None and self.reply.status == "ok"


class History:
    """The callers' side: when each id was sent, and every end that its caller was told."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self.sent: dict[str, float] = {}
        self.ended: dict[str, list[Ended]] = {}

    def invoke(self, call_id: str) -> None:
        """Note that a call is about to be sent."""
        with self._lock:
            self.sent.setdefault(call_id, time.monotonic())
            self._lock.notify_all()

    def watch(self, call_id: str, future: CallFuture) -> None:
        """Note the call's end when it comes."""
        future.add_done_callback(lambda _: self.end(call_id, future.reply))

    def end(self, call_id: str, reply: Callable[[], Reply]) -> None:
        """Note a call's end: its reply, or what is raised instead."""
        try:
            ended = Ended(time.monotonic(), reply(), None)
        except Exception as error:  # noqa: BLE001  # whatever its caller is told
            ended = Ended(time.monotonic(), None, error)
        with self._lock:
            self.ended.setdefault(call_id, []).append(ended)
            self._lock.notify_all()

    def waiting(self) -> set[str]:
        """Return the ids whose callers still wait."""
        with self._lock:
            return self.sent.keys() - self.ended.keys()

    def wait_waiting(self, count: int, timeout_s: float) -> bool:
        """Wait until so many callers wait at once; say whether they have."""
        with self._lock:
            return self._lock.wait_for(lambda: len(self.sent) - len(self.ended) >= count, timeout_s)

    def wait_ended(self, count: int, timeout_s: float) -> bool:
        """Wait until so many calls have ended; say whether they have."""
        with self._lock:
            return self._lock.wait_for(lambda: len(self.ended) >= count, timeout_s)

    def last_end_of(self, call_ids: Iterable[str]) -> float:
        """Return when the last of some calls ended, by the monotonic clock, s."""
        return max(self.ended[call_id][0].at_s for call_id in call_ids)

    def worst_gap_s(self) -> float:
        """Return the longest time in which no caller was told anything, s."""
        times = sorted([min(self.sent.values()), *(one.at_s for ends in self.ended.values() for one in ends)])
        return max((later - earlier for earlier, later in pairwise(times)), default=0.0)


@dataclass
class Verdict:
    """Where every id is, after the system has healed and drained."""

    attempted: int
    acked: int
    """In `requests` or `inference.*`: the broker has them, so they must be accounted for."""
    unknown: set[str]
    """Neither there nor answered: their callers were told so, or never sent them."""
    lost: set[str] = field(default_factory=set)
    duplicated: set[str] = field(default_factory=set)
    """More than one reply record, or more than one dead letter."""
    unexplained: set[str] = field(default_factory=set)
    """An error without a message, or a dead letter without a reason."""
    twice_told: set[str] = field(default_factory=set)
    ok: set[str] = field(default_factory=set)
    errors: Counter[str] = field(default_factory=Counter)
    dead_lettered: set[str] = field(default_factory=set)
    executions: Counter[str] = field(default_factory=Counter)
    retried: int = 0
    worst_gap_s: float = 0.0
    seed: int = 0

    @property
    def ran_twice(self) -> set[str]:
        """Ids whose function began more than once."""
        return {call_id for call_id, count in self.executions.items() if count > 1}

    def __str__(self) -> str:
        return (
            f"attempted {self.attempted}, acked {self.acked}, unknown {len(self.unknown)}, lost {len(self.lost)}, "
            f"duplicated {len(self.duplicated)}, ok {len(self.ok)}, errors {dict(self.errors)}, "
            f"dead letters {len(self.dead_lettered)}, retried {self.retried}, "
            f"executed {sum(self.executions.values())} times ({len(self.ran_twice)} ids more than once), "
            f"worst gap {self.worst_gap_s:.2f} s, seed {self.seed}"
        )

    def require(self, *, all_ok: bool = True, one_record: bool = True) -> None:
        """Fail unless every id is accounted for and every caller was told once.

        With `all_ok`, every one must have a result; with `one_record`, the reply topic must not hold a second reply,
        which a `Client` skips and a plain consumer would see.
        """
        print(self)
        judged = ["lost", "unexplained", "twice_told", *(["duplicated"] if one_record else [])]
        problems = {name: sorted(found)[:5] for name in judged if (found := getattr(self, name))}
        if all_ok and len(self.ok) != self.attempted:
            problems["without a result"] = sorted(map(str, self.errors.items()))
        assert not problems, f"{problems}: {self}"


def judge(settings: Settings, history: History, *, journal: Path | None = None, seed: int = 0) -> Verdict:
    """Wait until nothing is under way any more, read the topics, and account for every id of the history."""
    await_drained(settings)
    ids = set(history.sent)
    asked: set[str] = set()
    replies: dict[str, list[Reply]] = {}
    letters: dict[str, list[str]] = {}
    retried = 0
    for message in everything(settings, "requests", "inference.", "replies"):
        topic = (message.topic() or "").removeprefix(settings.namespace)
        call_id = id_of(message)
        if call_id not in ids:
            continue
        if topic == "replies":
            replies.setdefault(call_id, []).append(decode_reply(message.value() or b""))
        elif topic == "requests.dlq":
            letters.setdefault(call_id, []).append(dict(headers_of(message)).get("easyremote_reason", b"").decode())
        elif topic.startswith("requests.retry."):
            retried += 1
        else:
            asked.add(call_id)
    verdict = Verdict(len(ids), len(asked), unknown=ids - asked - replies.keys(), retried=retried, seed=seed)
    verdict.lost = asked - replies.keys() - letters.keys()
    verdict.duplicated = {key for found in (replies, letters) for key, values in found.items() if len(values) > 1}
    verdict.dead_lettered = set(letters)
    verdict.unexplained = {key for key, reasons in letters.items() if not all(reasons)} | {
        key for key, values in replies.items() for one in values if one.status == "error" and not _message(one)
    }
    _hear_callers(verdict, history)
    verdict.executions = executions(journal) if journal is not None else Counter()
    verdict.worst_gap_s = history.worst_gap_s()
    return verdict


def _hear_callers(verdict: Verdict, history: History) -> None:
    for call_id in history.sent:
        ends = history.ended.get(call_id, [])
        if len(ends) > 1:
            verdict.twice_told.add(call_id)
        if not ends:
            verdict.errors["never ended"] += 1
        elif ends[0].is_ok:
            verdict.ok.add(call_id)
        else:
            reply = ends[0].reply
            verdict.errors[type(ends[0].error).__name__ if reply is None else _type(reply)] += 1


def _message(reply: Reply) -> str:
    return getattr(reply.error, "message", "")


def _type(reply: Reply) -> str:
    return str(getattr(reply.error, "type", ""))


def id_of(message: Message) -> str | None:
    """Return the id of a request, a reply or a dead letter."""
    headers = dict(headers_of(message))
    for name in ("easyremote_id", CORRELATION_ID):
        if name in headers:
            return headers[name].decode(errors="replace")
    try:
        body = json.loads(message.value() or b"")
    except ValueError:
        return None
    return body.get("id") if isinstance(body, dict) else None


def executions(journal: Path) -> Counter[str]:
    """Return how often the function of each id began, by what `marking` wrote down."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    return Counter(line.split()[0] for line in lines)


def everything(settings: Settings, *prefixes: str) -> Iterator[Message]:
    """Yield every committed record of the topics whose names begin so, from their beginning to their present end."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap_servers(),
            "group.id": "checker",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    try:
        topics = consumer.list_topics(timeout=20).topics
        wanted = tuple(settings.namespace + prefix for prefix in prefixes)
        places = [
            TopicPartition(name, number, 0)
            for name, topic in topics.items()
            if name.startswith(wanted)
            for number in topic.partitions
        ]
        consumer.assign(places)
        open_ = {(place.topic, place.partition) for place in places}
        deadline = time.monotonic() + DRAIN_S
        while open_ and time.monotonic() < deadline:
            for message in consumer.consume(1_000, 1.0):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_.discard((message.topic() or "", message.partition() or 0))
        assert not open_, f"these were not read to their end: {sorted(open_)}"
    finally:
        consumer.close()


def await_drained(settings: Settings, timeout_s: float = DRAIN_S) -> None:
    """Wait until the groups of routers, retries and nodes have committed everything that stands in their topics."""
    deadline = time.monotonic() + timeout_s
    tick = threading.Event()
    while behind := _behind(settings):
        assert time.monotonic() < deadline, f"not drained after {timeout_s:g} s: {behind}"
        tick.wait(0.1)  # the broker tells nobody of commits


def _behind(settings: Settings) -> dict[str, int]:
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers()})
    groups = [one.group_id for one in admin.list_consumer_groups().result(20).valid]
    consumer = Consumer({"bootstrap.servers": settings.bootstrap_servers(), "group.id": "checker"})
    try:
        lag: dict[str, int] = {}
        for group in groups:
            if not group.startswith(settings.namespace):
                continue
            topic = group.removeprefix(f"{settings.namespace}easyremote.")
            name = settings.namespace + ("requests" if topic == "router" else topic)
            if not topic.startswith(("router", "inference.", "requests.retry.")):
                continue
            lag |= _lag(admin, consumer, group, name)
        return lag
    finally:
        consumer.close()


def _lag(admin: AdminClient, consumer: Consumer, group: str, topic: str) -> dict[str, int]:
    wanted = [ConsumerGroupTopicPartitions(group)]
    committed = admin.list_consumer_group_offsets(wanted)[group].result(20).topic_partitions or []
    stands = {one.partition: one.offset for one in committed if one.topic == topic}
    lag = {}
    for number in consumer.list_topics(topic, timeout=20).topics[topic].partitions:
        marks = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=20)
        assert marks is not None
        left = marks[1] - max(stands.get(number, 0), marks[0])
        if left > 0:
            lag[f"{topic}[{number}]"] = left
    return lag
