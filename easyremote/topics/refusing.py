"""A record that is refused: its reply, where it says to, and its dead letter; each once, whoever refuses it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from easyremote.errors import EasyRemoteError
from easyremote.topics.catalog import DEAD_LETTERS
from easyremote.topics.letters import Failure, stack_of
from easyremote.topics.producer import Delivered, is_refused
from easyremote.topics.records import RecordRef
from easyremote.topics.replying import dead_letter, encode_reply, error_reply, send_reply
from easyremote.topics.wire import SOURCE, headers_of

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

    from easyremote.settings import Settings
    from easyremote.topics.certain import CertainProducer
    from easyremote.topics.tails import Tails
    from easyremote.topics.wire import Address, Origin

__all__ = ["Refusal", "Refusals"]

log = structlog.get_logger(__name__)

Done = Callable[["KafkaError | None"], None]


@dataclass(frozen=True)
class Refusal:
    """A record that leads to nothing else, and why.

    Parameters
    ----------
    message, origin
        The record, and where it stands.
    error : Exception
        Why.
    call_id : str
        Of the call, given or made.
    address : Address or None
        Where the reply goes; None: nowhere.
    function, traceparent, attempts
        Of the call, as far as they are known.
    is_letter : bool
        Whether it becomes a dead letter, or is only answered.
    """

    message: Message
    origin: Origin
    error: Exception
    call_id: str | None
    address: Address | None
    function: str | None = None
    traceparent: bytes | None = None
    attempts: int | None = None
    is_letter: bool = True


class Refusals:
    """Answers refused records and makes dead letters of them.

    Parameters
    ----------
    settings : Settings
        Namespace, node id.
    producer : CertainProducer
        Sends.
    tails : Tails
        Looks for what was sent by the one before.
    """

    def __init__(self, settings: Settings, producer: CertainProducer, tails: Tails) -> None:
        self._settings = settings
        self._producer = producer
        self._tails = tails
        self._letters = settings.namespace + DEAD_LETTERS

    def refuse(
        self, one: Refusal, done: Done, *, wanted: Callable[[], bool] = lambda: True, in_doubt: bool = False
    ) -> None:
        """Send what is to be sent; `done` is told once, when the broker has all of it.

        Of a record in doubt, which another one may have refused already, only what is missing is sent.
        """
        if not in_doubt:
            self._send(one, done, wanted, with_reply=one.address is not None, with_letter=one.is_letter)
            return
        places: list[tuple[str, int | None]] = [(self._letters, None)] if one.is_letter else []
        if one.address is not None:
            places.append((one.address.topic, one.address.partition))

        def told(found: Mapping[bytes, Sequence[RecordRef]], _missing: Collection[str]) -> None:
            there = {record.topic for records in found.values() for record in records}
            self._send(
                one,
                done,
                wanted,
                with_reply=one.address is not None and one.address.topic not in there,
                with_letter=one.is_letter and self._letters not in there,
            )

        self._tails.ask(places, float(one.origin.timestamp_ms), [one.origin.source], told)

    def _send(
        self, one: Refusal, done: Done, wanted: Callable[[], bool], *, with_reply: bool, with_letter: bool
    ) -> None:
        def reply(error: KafkaError | None) -> None:
            if error is None and with_reply:
                self._reply(one, done, wanted)
            else:
                done(error)

        # The reply comes last, so that it says: all of this is done.
        if with_letter:
            self._bury(one, reply, wanted)
        else:
            reply(None)

    def _reply(self, one: Refusal, done: Done, wanted: Callable[[], bool]) -> None:
        if one.address is None or one.call_id is None:
            done(None)
            return
        reply = error_reply(
            one.error,
            call_id=one.call_id,
            function=one.function,
            node_id=self._settings.node_id,
            attempts=one.attempts or 1,
        )
        try:
            send_reply(
                self._producer,
                one.address,
                one.traceparent,
                (one.call_id, encode_reply(reply)),
                _told(done),
                more=[(SOURCE, one.origin.source)],
                wanted=wanted,
            )
        except EasyRemoteError as failure:
            log.warning("an error reply has nowhere to go", topic=one.address.topic, error=str(failure))
            done(None)

    def _bury(self, one: Refusal, done: Done, wanted: Callable[[], bool]) -> None:
        message = one.message
        dead_letter(
            self._producer,
            self._settings.namespace,
            (message.key(), message.value(), headers_of(message)),
            RecordRef(one.origin.topic, one.origin.partition, one.origin.offset),
            one.error,
            _told(done),
            failure=Failure(
                node_id=self._settings.node_id,
                call_id=one.call_id,
                attempts=one.attempts,
                stack=None if isinstance(one.error, EasyRemoteError) else stack_of(one.error),
            ),
            wanted=wanted,
        )


def _told(done: Done) -> Delivered:
    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None and is_refused(error):
            log.error("what is said of a refused record has nowhere to go", topic=message.topic(), error=str(error))
            error = None
        done(error)

    return delivered
