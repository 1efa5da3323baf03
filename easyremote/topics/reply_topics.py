"""Where replies may go: into `replies` and callers' own topics, never into one that a system reads or keeps.

A call says itself where its reply goes, so whoever may send one could have a node write into any topic. What a name
says is decided once, what the broker says of it is remembered for a while, and a known topic costs a call one look
into a dictionary.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog

from easyremote.clock import monotonic_s
from easyremote.errors import CallError, MalformedRequest, TopicError, UnknownReplyTopic
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import REPLIES, declarations, inference_topic
from easyremote.topics.limits import is_topic_name, shortened

if TYPE_CHECKING:
    from easyremote.settings import Settings
    from easyremote.topics.wire import Address

__all__ = ["Asked", "Partitions", "ReplyTopics", "is_own", "siblings"]

log = structlog.get_logger(__name__)

Partitions = Mapping[str, int | None]
"""Partitions of topics by their full names; None where there is no such topic."""

_SHOWN = 100
_DECLARED = {topic.name: topic.partitions for topic in declarations()}
_INTERNAL = "__"
_TELLING = (".dlq", ".handled", ".late", ".changelog")
_TELLING_NAME = re.compile(r".*(inference\.[A-Za-z0-9_-]+|requests\.retry\.\w+)")
"""Names that only a system gives, in whichever namespace."""
_SIBLINGS = ("requests", "nodes", "results")
"""What a system has beside any of its topics: a name that could be anybody's is a system's where these exist."""

_KNOWN_S = 60.0
_MISSING_S = 2.0
"""Short: whoever is refused makes the topic and calls again."""
_NO_ANSWER_S = 5.0
"""After a broker did not answer, until it is asked again; calls go on meanwhile."""
_MOST_KNOWN = 20_000


class _Known(NamedTuple):
    """What is known of a topic, until when: how many partitions it has, or why no reply may go there."""

    partitions: int
    until_s: float
    fault: tuple[type[CallError], str] | None = None


class Asked(Protocol):
    """Asks the broker about topics; a `TopicAdmin` does."""

    def partitions_of(self, topics: Iterable[str]) -> Partitions:
        """Return the partitions of topics; raise a TopicError if the broker does not say."""
        ...

    def create(self, topic: str, partitions: int) -> bool:
        """Make a topic."""
        ...


_ANY_PARTITION = 1 << 31


def is_own(topic: str, namespace: str, outputs: Iterable[str] = ()) -> bool:
    """Say whether a name is that of a topic of this system, other than `replies`, or of Kafka itself.

    Parameters
    ----------
    topic : str
        Full name.
    namespace : str
        Prefix of this system's topics.
    outputs : iterable of str
        What pipelines read and write here, without the prefix.
    """
    if topic.startswith(_INTERNAL):
        return True
    if not topic.startswith(namespace):
        return False
    name = topic.removeprefix(namespace)
    is_state = name.startswith("pipelines.") and name.endswith(".changelog")
    is_declared = (name in _DECLARED and name != REPLIES) or name in outputs
    return is_declared or is_state or name.startswith(inference_topic(""))


def siblings(topic: str) -> list[str]:
    """Return the topics that exist beside this one if it is another system's; none: its name is nobody's.

    Examples
    --------
    >>> siblings("other-nodes"), siblings("my-news")
    (['other-requests', 'other-nodes', 'other-results'], [])
    """
    for name in _DECLARED:
        if topic.endswith(name):
            prefix = topic.removesuffix(name)
            return [prefix + one for one in _SIBLINGS]
    return []


class ReplyTopics:
    """Says of each call whether its reply has a place to go, before it is run; for several threads.

    Parameters
    ----------
    settings : Settings
        The namespace, which topics are allowed, whether those that are missing are made.
    outputs : iterable of str
        Topics of pipelines, without the prefix.
    admin : callable, optional
        Returns who asks the broker; called again after one that failed, which may have forgotten where the broker is.
    clock : callable
        Monotonic, s.
    """

    def __init__(
        self,
        settings: Settings,
        outputs: Iterable[str] = (),
        *,
        admin: Callable[[], Asked] | None = None,
        clock: Callable[[], float] = monotonic_s,
    ) -> None:
        self._settings = settings
        self._outputs = frozenset(outputs)
        self._make_admin: Callable[[], Asked] = admin or (lambda: TopicAdmin(settings))
        self._admin: Asked | None = None
        self._clock = clock
        self._allowed = None if settings.reply_topics is None else re.compile(settings.reply_topics)
        self._lock = threading.Lock()
        self._replies = settings.namespace + REPLIES
        self._known = {self._replies: _Known(_DECLARED[REPLIES], float("inf"))}

    def unseen(self, addresses: Iterable[Address | None]) -> set[str]:
        """Return the topics that the broker is to be asked about: nothing is known of them, or not any more."""
        known, now_s = self._known, self._clock()
        found = set()
        for address in addresses:
            if address is not None:
                entry = known.get(address.topic)
                if (entry is None and self.name_fault(address.topic) is None) or (entry and entry.until_s <= now_s):
                    found.add(address.topic)
        return found

    def learn(self, topics: Iterable[str]) -> None:
        """Find out about topics that are `unseen`, those of a batch together; waits for the broker, 2 s at most."""
        asked = list(topics)
        if not asked:
            return
        beside = {topic: siblings(topic) if self._allowed is None else [] for topic in asked}
        names = dict.fromkeys([*asked, *(one for names in beside.values() for one in names)])
        now_s = self._clock()
        try:
            partitions = self._ask(list(names), asked)
        except TopicError as error:
            log.warning("it is not known where replies may go; calls go on", topics=len(asked), error=str(error))
            self._keep({topic: self._let_through(topic, now_s) for topic in asked})
            return
        known = {topic: _found(topic, partitions, beside[topic], now_s) for topic in asked}
        self._keep({topic: one or self._let_through(topic, now_s) for topic, one in known.items()})

    def fault(self, address: Address) -> CallError | None:
        """Return why no reply may go to an address, as far as it is known."""
        known = self._known.get(address.topic)
        if known is None:
            return self.name_fault(address.topic)
        if known.fault is not None:
            kind, reason = known.fault
            return kind(reason)
        if address.partition is None or 0 <= address.partition < known.partitions:
            return None
        return UnknownReplyTopic(
            f"the reply cannot go to partition {address.partition} of {address.topic}, which has {known.partitions}: "
            "name one of them in kafka_replyPartition, or none"
        )

    def _ask(self, names: list[str], wanted: list[str]) -> Partitions:
        with self._lock:
            admin, self._admin = self._admin or self._make_admin(), None
            found = dict(admin.partitions_of(names))
            if self._settings.create_reply_topics:
                for topic in wanted:
                    if found.get(topic, 0) is None:
                        admin.create(topic, self._settings.create_reply_topics)
                        log.info("a reply topic is made, since a call names it", topic=topic)
                        found[topic] = self._settings.create_reply_topics
            self._admin = admin
            return found

    def name_fault(self, topic: str) -> MalformedRequest | None:
        """Return why no reply may go to a topic of this name, whether it exists or not."""
        # Not remembered: a name may be a megabyte long.
        if not is_topic_name(topic):
            return MalformedRequest(
                f"no topic can be called {shortened(repr(topic), _SHOWN)}: 1 to 249 letters, digits, dots, - and _"
            )
        if is_own(topic, self._settings.namespace, self._outputs):
            return MalformedRequest(
                f"replies cannot go to {topic}, a topic of the system itself: name {self._replies} or a topic of your "
                "own ('easyremote topics create NAME' makes one)"
            )
        if self._allowed is not None:
            if self._allowed.fullmatch(topic):
                return None
            return MalformedRequest(
                f"replies cannot go to {topic}: EASYREMOTE_REPLY_TOPICS allows {self._replies} and what matches "
                f"{self._allowed.pattern}"
            )
        if topic.endswith(_TELLING) or _TELLING_NAME.fullmatch(topic):
            return MalformedRequest(_anothers(topic))
        return None

    def _let_through(self, topic: str, now_s: float) -> _Known:
        before = self._known.get(topic)
        return (before or _Known(_ANY_PARTITION, 0.0))._replace(until_s=now_s + _NO_ANSWER_S)

    def _keep(self, found: Mapping[str, _Known]) -> None:
        with self._lock:
            for topic, known in found.items():
                self._known.pop(topic, None)
                self._known[topic] = known
            # The first one is `replies`.
            for oldest in list(islice(self._known, 1, max(1, len(self._known) - _MOST_KNOWN + 1))):
                del self._known[oldest]


def _anothers(topic: str) -> str:
    return (
        f"replies cannot go to {topic}, which is or looks like a topic of another system: name a topic of your own, or "
        "let the workers allow it (EASYREMOTE_REPLY_TOPICS)"
    )


def _found(topic: str, partitions: Partitions, beside: list[str], now_s: float) -> _Known | None:
    if topic not in partitions:
        return None
    count = partitions[topic]
    if count is None:
        reason = (
            f"there is no topic {topic} for the reply: make it before calls name it ('easyremote topics create "
            f"{topic}'), or let the workers make such (EASYREMOTE_CREATE_REPLY_TOPICS)"
        )
        return _Known(0, now_s + _MISSING_S, (UnknownReplyTopic, reason))
    if beside and all(partitions.get(one) is not None for one in beside):
        return _Known(0, now_s + _KNOWN_S, (MalformedRequest, _anothers(topic)))
    return _Known(count, now_s + _KNOWN_S)
