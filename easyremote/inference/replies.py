"""Makes the replies of a node's calls, encoded and within the limits, and counts how the calls went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from msgspec import UNSET, structs

from easyremote.clock import wall_ms
from easyremote.errors import EasyRemoteError, NotOfferedHere, PayloadTooLarge, RemoteError
from easyremote.inference.jobs import Outcome
from easyremote.topics.causes import is_retriable, message_of, name_of, user_stack_of
from easyremote.topics.json_form import bytes_places, encode, encode_plain, plain, refuse_no_number
from easyremote.topics.records import Reply, TimingsMs
from easyremote.topics.replying import encode_reply, error_body

if TYPE_CHECKING:
    from collections.abc import Callable

    from easyremote.inference.functions import Function
    from easyremote.inference.jobs import Job
    from easyremote.inference.node import AINodeManager
    from easyremote.topics.claims import ClaimDesk
    from easyremote.topics.wire import Call

__all__ = ["ReplyMaker", "as_json"]

log = structlog.get_logger(__name__)


class ReplyMaker:
    """Turns results and errors into replies.

    Parameters
    ----------
    node : AINodeManager
        The models that replies name, and the counts.
    node_id : str
        Named in the replies.
    max_payload_bytes : int
        Largest reply, bytes.
    desk : ClaimDesk
        Takes larger results, for callers that can fetch them.
    tracebacks : bool
        Whether replies say where a function raised.
    """

    def __init__(
        self, node: AINodeManager, node_id: str, max_payload_bytes: int, desk: ClaimDesk, *, tracebacks: bool = True
    ) -> None:
        self._node = node
        self._node_id = node_id
        self._max_payload_bytes = max_payload_bytes
        self._desk = desk
        self._tracebacks = tracebacks

    def most_bytes(self, call: Call) -> int:
        """Return how large a call's result may be, bytes."""
        return self._desk.max_bytes if call.claim_result else self._max_payload_bytes

    def success(self, job: Job, function: Function, result: Any, shared_by: int = 1) -> Outcome:
        """Return the outcome of a call that has a result, if it can be sent; `shared_by` calls took its time."""
        timings = _timings(job)
        reply = Reply(
            id=job.call.id,
            function=function.name,
            status="ok",
            result=result,
            node_id=self._node_id,
            model=function.model,
            model_version=function.version,
            attempts=job.call.attempt,
            timings_ms=timings,
        )
        if job.stream is not None:
            reply = structs.replace(reply, seq=job.stream.count, final=True)
        try:
            if job.bytes_at:
                reply = structs.replace(reply, bytes_at=job.bytes_at)
            reply, value = _as_record(reply, "result", bytes_at=job.call.bytes_at)
            if job.call.claim_result and self._desk.is_large(value):
                return Outcome(b"", claimed=lambda: self._claimed(job, reply, shared_by))
            self._refuse_large(value, "result", function.name)
        except EasyRemoteError as error:
            return self.failure(job, error)
        self._node.stats.record(function.name, timings.executed / 1000 / shared_by, ok=True)
        return Outcome(value)

    def _claimed(self, job: Job, reply: Reply, shared_by: int) -> Outcome:
        try:
            value = self._claiming(reply, "result")
        except Exception as error:  # noqa: BLE001  # who runs this knows no other way to tell the caller
            return self.failure(job, error)
        self._node.stats.record(job.call.function, reply.timings_ms.executed / 1000 / shared_by, ok=True)
        return Outcome(value)

    def _claiming(self, reply: Reply, what: str) -> bytes:
        blob = self._desk.put(as_json(reply.result, "result"), f"{what} of {reply.function}")
        return encode_reply(structs.replace(reply, result=UNSET, result_claim=blob))

    def failure(self, job: Job, error: BaseException) -> Outcome:
        """Return the outcome of a call that has none but an error, whatever the error does when it is looked at."""
        stack = user_stack_of(error)
        if isinstance(error, RemoteError) or not isinstance(error, EasyRemoteError):
            said = f"{name_of(error)}: {message_of(error)}"
            log.warning("a function raised", function=job.call.function, call=job.call.id, error=said, stack=stack)
        retriable = is_retriable(error, self._node.registry.retry_on(job.call.function))
        timings = _timings(job)
        if not isinstance(error, NotOfferedHere):
            self._node.stats.record(job.call.function, timings.executed / 1000, ok=False)
        reply = Reply(
            id=job.call.id,
            function=job.call.function,
            status="error",
            error=error_body(error, retriable=retriable, stack=stack if self._tracebacks else None),
            node_id=self._node_id,
            model=None,
            model_version=None,
            attempts=job.call.attempt,
            timings_ms=timings,
        )
        if job.stream is not None:
            reply = structs.replace(reply, seq=job.stream.count, final=True)
        return Outcome(encode_reply(reply), error, retriable)

    def item(self, job: Job, function: Function, seq: int, item: Any) -> bytes | Callable[[], bytes]:
        """Return the record of one item of a stream, or for a large one what puts it into the blob store first.

        Raises
        ------
        RemoteError
            If it has no form in JSON.
        PayloadTooLarge
            If it is larger than the limit.
        BlobStoreError
            Later, if the store does not take it.
        """
        reply = Reply(
            id=job.call.id,
            function=function.name,
            status="ok",
            result=item,
            node_id=self._node_id,
            model=None,
            model_version=None,
            attempts=job.call.attempt,
            timings_ms=_timings(job),
            seq=seq,
            final=False,
        )
        reply, value = _as_record(reply, "item", bytes_at=job.call.bytes_at)
        if job.call.claim_result and self._desk.is_large(value):
            return lambda: self._claiming(reply, f"item {seq}")
        self._refuse_large(value, f"item {seq}", function.name)
        return value

    def _refuse_large(self, encoded: bytes, what: str, function: str) -> None:
        if len(encoded) > self._max_payload_bytes:
            raise PayloadTooLarge(
                f"the {what} of {function} has {len(encoded)} bytes, the limit is {self._max_payload_bytes} bytes "
                "(EASYREMOTE_MAX_PAYLOAD_BYTES)"
            )


def as_json(value: Any, name: str) -> bytes:  # Any: whatever a function returned
    """Return what a function returned as JSON; `name` is for the message.

    Raises
    ------
    RemoteError
        If it has no form in JSON.
    """
    try:
        return encode(value, name)
    except BaseException as error:
        raise _unencodable(error) from error


def _as_record(reply: Reply, name: str, *, bytes_at: bool) -> tuple[Reply, bytes]:
    # As `json_form.encode` does, but the result is encoded once, in its reply.
    try:
        try:
            value = encode_plain(reply)
        except TypeError:
            reply = structs.replace(reply, result=plain(reply.result))
            value = encode_plain(reply)
        if value.count(b"null") > (reply.model is None) + (reply.model_version is None):
            refuse_no_number(reply.result, name)
        if bytes_at and (places := bytes_places(reply.result)):
            reply = structs.replace(reply, bytes_at=[list(place) for place in places])
            value = encode_plain(reply)
    except BaseException as error:
        raise _unencodable(error) from error
    return reply, value


def _unencodable(error: BaseException) -> RemoteError:
    if isinstance(error, RecursionError):
        return RemoteError("the result is nested too deeply, or holds itself", type="UnencodableResult")
    if isinstance(error, TypeError):
        said = f"the result has no form in JSON: {message_of(error)}: return plain types"
        return RemoteError(said, type="UnencodableResult")
    named = "" if isinstance(error, ValueError) else f"{name_of(error)}: "
    return RemoteError(f"the result has no form in JSON: {named}{message_of(error)}", type="UnencodableResult")


def _timings(job: Job) -> TimingsMs:
    now = wall_ms()
    call = job.call
    routed_at = call.routed_ms if call.routed_ms is not None else call.sent_ms
    started = job.started_ms or now
    spans = (
        routed_at - call.sent_ms,
        job.arrived_ms - routed_at,
        started - job.arrived_ms,
        now - started,
        now - call.sent_ms,
    )
    # To the microsecond; the clocks of two machines may make one negative.
    return TimingsMs(*[int(span * 1000) / 1000 if span > 0 else 0.0 for span in spans])
