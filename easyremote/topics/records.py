"""The values of the records that travel, as JSON by msgspec; `wire.py` adds what travels in their headers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from easyremote.settings import Strategy
from easyremote.topics.limits import (
    MAX_DEPTH,
    MAX_ID,
    CallId,
    Count,
    FunctionName,
    Name,
    TimeMs,
    TopicName,
    is_too_deep,
)

__all__ = [
    "MOST_CONTROL_BYTES",
    "MOST_MODELS",
    "Aggregate",
    "Alert",
    "Blob",
    "Cancellation",
    "Claim",
    "Death",
    "ErrorBody",
    "Followed",
    "FunctionInfo",
    "GpuState",
    "Heartbeat",
    "Lateness",
    "ModelState",
    "Offer",
    "Reading",
    "RecordRef",
    "Reply",
    "Request",
    "TimingsMs",
    "checked_decoder",
    "decode_cancellation",
    "decode_death",
    "decode_heartbeat",
    "decode_offer",
    "decode_reading",
    "decode_reply",
    "decode_request",
    "encode",
]

T = TypeVar("T")
_Series = Annotated[str, Meta(min_length=1, max_length=1_024)]
_Number = Annotated[int, Meta(ge=0, lt=100_000)]
_Percent = Annotated[float, Meta(ge=0, le=1_000)]
_Seconds = Annotated[float, Meta(ge=0, le=1e9)]
_CostMs = Annotated[float, Meta(gt=0, le=1e9)]
_Text = Annotated[str, Meta(max_length=4_096)]
_PoolName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]+\Z", max_length=200)]
_MOST_FUNCTIONS = 10_000
MOST_MODELS = 200
"""Of which one heartbeat tells."""
MOST_CONTROL_BYTES = 1_000_000
"""Of a heartbeat, an offer or an order: ours have some kB."""
Priority = Literal["high", "normal", "low"]


class Blob(Struct, frozen=True, forbid_unknown_fields=True):
    """What is put into the blob store: it is known by its content, so no record can say where it is."""

    sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    bytes: Count


class Claim(Blob, frozen=True, forbid_unknown_fields=True):
    """An argument whose JSON is in the blob store: the one of this position or name."""

    arg: Annotated[int, Meta(ge=0, lt=2**31)] | str


class Request(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Value of a record on `requests`; only `function` is required.

    Arguments stay raw JSON until the function that takes them is known, so a router never decodes a picture.
    """

    function: FunctionName
    args: list[Raw] = []
    kwargs: dict[str, Raw] = {}
    id: Annotated[str, Meta(max_length=MAX_ID)] | None = None
    reply_to: TopicName | None = None
    target: Annotated[str, Meta(max_length=255)] | None = None
    affinity_key: Annotated[str, Meta(max_length=MAX_ID)] | None = None
    strategy: Strategy | None = None
    model: Annotated[str, Meta(max_length=255)] | None = None
    priority: Priority = "normal"
    deadline_ms: TimeMs | None = None
    timeout_s: _Seconds | None = None
    stream: bool = False
    claims: Annotated[list[Claim], Meta(max_length=1_000)] = []
    """The arguments that are in the blob store; `null` stands in `args` or `kwargs` for each."""
    claim_result: bool = False
    """Whether the caller takes a large result from the blob store."""
    bytes_at: bool = False
    """Whether the caller wants to be told which texts of the result stand for bytes."""
    from_seq: Annotated[int, Meta(ge=0, lt=2**31)] = 0
    """Of a stream: the first item that is sent."""

    def __post_init__(self) -> None:
        for claim in self.claims:
            if isinstance(claim.arg, int) and claim.arg >= len(self.args):
                raise ValueError(f"`claims` names argument {claim.arg}, `args` has {len(self.args)}")


class ErrorBody(Struct, frozen=True):
    """What went wrong: the error's class, what it says, whether a second try can help."""

    type: str
    message: str
    retriable: bool = False
    traceback: str | UnsetType = UNSET
    """Where the function raised it, from the function itself on, the innermost 8 KiB; only if it did."""


class TimingsMs(Struct, frozen=True):
    """Where a call's time went, ms: in `requests`, in the router, before the function ran, in it, altogether."""

    queued: float
    routed: float
    waited: float
    executed: float
    total: float


class Reply(Struct, frozen=True, kw_only=True):
    """Value of a record on a reply topic; has `result` or `result_claim` if `status` is `ok`, else `error`.

    An item of a stream has `seq` and a `final` that is false; the stream's end has a true one, and no `result`. A reply
    without `final` is final.
    """

    id: str
    function: str | None
    status: Literal["ok", "error"]
    result: Any = UNSET  # Any: whatever the function returned, as JSON
    result_claim: Blob | UnsetType = UNSET
    """Where the result is in the blob store, only for a caller that said `claim_result`."""
    error: ErrorBody | UnsetType = UNSET
    node_id: str
    model: str | None
    model_version: str | None
    attempts: int
    timings_ms: TimingsMs
    bytes_at: list[list[str | int | None]] | UnsetType = UNSET
    """Where in the result base64 text stands for bytes, only for a caller that asked and if there are any: the keys and
    indices on the way to each; null at its end: each item of that list."""
    seq: int | UnsetType = UNSET
    """The item's number, from 0; at the end, how many items there are."""
    final: bool | UnsetType = UNSET


class Cancellation(Struct, frozen=True):
    """Value of a record on `cancellations`: the call that its caller withdraws."""

    id: CallId


class Death(Struct, frozen=True):
    """Value of a record on `suspects`: a process died while the call of the record's key was under way."""

    death: Name
    """Names the process, so that a death that is told twice is one."""
    told_by: Name
    calls: Annotated[int, Meta(ge=1, le=1_000_000)]
    """How many were under way at it; each has a record of its own."""


class ModelState(Struct, frozen=True):
    """A model that a node holds, and which version of it."""

    name: Name
    version: Annotated[str, Meta(max_length=255)]
    loaded: bool
    load_s: _Seconds = 0.0
    """How long loading it took, s; 0: not known."""
    state: Literal["ready", "loading", "failed", "unloaded"] = "ready"
    """Of the last order: `failed` leaves the version that answered before in its place."""
    coming: Annotated[str, Meta(max_length=255)] | None = None
    """The version that is being loaded, or that failed."""
    reason: _Text | None = None
    """Why it failed."""
    previous: Annotated[str, Meta(max_length=255)] | None = None
    """The version that is kept in memory to go back to."""
    since: dict[int, int] = {}
    """From which offset on of each partition this version answers every call."""
    order_id: Annotated[str, Meta(max_length=255)] | None = None
    """The last order on `models` that this node has dealt with."""


class GpuState(Struct, frozen=True):
    """The GPU on which a node's models run."""

    name: _Text
    memory_used_bytes: Count
    """By all processes."""
    memory_total_bytes: Count
    utilisation_percent: _Percent | None = None
    """None: the driver does not say."""


class Followed(Struct, frozen=True):
    """How many records of a topic for the system's own use a process has read; the rest of them it has heeded."""

    read: Count = 0
    passed_over: Count = 0
    """Those that are none of ours."""


class Heartbeat(Struct, frozen=True, kw_only=True):
    """Value of a record on `nodes`, keyed by `node_id`: what a worker is doing right now.

    A record without a value (a tombstone) says that the node left.
    """

    node_id: Name
    sent_ms: TimeMs
    roles: Annotated[list[Name], Meta(max_length=100)]
    ready: Annotated[list[Name], Meta(max_length=100)]
    """The roles that are up; the worker is ready when these are all its roles."""
    node_type: Name | None = None
    pool: _PoolName | None = None
    partitions: Annotated[list[_Number], Meta(max_length=10_000)] = []
    """The partitions of `inference.<pool>` that this node holds."""
    functions: Annotated[list[FunctionName], Meta(max_length=_MOST_FUNCTIONS)] = []
    models: Annotated[list[ModelState], Meta(max_length=MOST_MODELS)] = []
    function_models: Annotated[dict[FunctionName, Name], Meta(max_length=_MOST_FUNCTIONS)] = {}
    """The model that answers a function, for the functions that have one."""
    in_flight: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    hung: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    """Calls past their limit whose threads have not come back."""
    total_requests: Count = 0
    failed_requests: Count = 0
    mean_response_s: _Seconds = 0.0
    cost_ms: Annotated[dict[FunctionName, _CostMs], Meta(max_length=_MOST_FUNCTIONS)] = {}
    """Learned ms per item, by function."""
    cpu_percent: _Percent = 0.0
    memory_percent: _Percent = 0.0
    gpu: GpuState | None = None
    dead_letters: Count = 0
    """Records that this process has made dead letters of, as none of what their topics are for."""
    passed_over: Count = 0
    """Records of the system's own topics, orders and reports that it could not use."""
    followed: Annotated[dict[TopicName, Followed], Meta(max_length=1_000)] = {}
    """By topic, without the namespace: what this process has read for the system's own use."""


class FunctionInfo(Struct, frozen=True, kw_only=True):
    """How one function of a node is called."""

    name: FunctionName
    doc: _Text = ""
    """The first line of its docstring."""
    arguments: dict[str, Any]  # Any: JSON Schema
    """JSON Schema of an object with the arguments by name, in the order in which `args` takes them."""
    result: dict[str, Any]  # Any: JSON Schema
    """JSON Schema of the result; of each item where it is streamed."""
    model: Annotated[str, Meta(max_length=255)] | None = None
    """Name of the model that answers, where one does."""
    stream: bool = False
    """Whether it yields its result item by item."""


class Offer(Struct, frozen=True, kw_only=True):
    """Value of a record on `functions`, keyed by `node_id`: all that a node offers, so that none of it can be stale.

    A record without a value says that the node left.
    """

    node_id: Name
    pool: _PoolName
    functions: Annotated[list[FunctionInfo], Meta(max_length=_MOST_FUNCTIONS)]


class Reading(Struct, frozen=True, kw_only=True, gc=False):
    """Value of a record on `readings`: one measurement of one metric of one device, at its event time."""

    device_id: _Series
    metric: _Series
    value: Annotated[float, Meta(ge=-1e150, le=1e150)]
    """Its square must be finite too."""
    timestamp_ms: Annotated[int, Meta(ge=0, lt=2**48)]


class RecordRef(Struct, frozen=True):
    """The place of a record in Kafka."""

    topic: str
    partition: int
    offset: int


class Aggregate(Struct, frozen=True, gc=False):
    """Value of a record on `aggregates`: a window `[window_start, window_end)` (ms, UTC) of one series.

    `variance` is the population's, in the square of the value's unit.
    """

    device_id: str
    metric: str
    window_start: int
    window_end: int
    count: int
    sum: float
    average: float
    min: float
    max: float
    variance: float
    revision: int = 0
    final: bool = True


class Lateness(Struct, frozen=True, kw_only=True):
    """What a record on `readings.late` has under `lateness`, beside everything that the reading had."""

    window_start: int
    window_end: int
    lateness_ms: int
    """How far behind what its windows still take (`late`), or ahead of the wall clock (`future`), ms."""
    reason: Literal["late", "future"]
    source: RecordRef


class Alert(Struct, frozen=True, kw_only=True):
    """Value of a record on `alerts`: what is wrong, where, how far off, from which records."""

    id: str
    kind: str
    device_id: str
    metric: str
    timestamp_ms: int
    value: float
    expected: float
    std_dev: float
    score: float
    threshold: float
    message: str
    records: list[RecordRef]


_encoder = msgspec.json.Encoder()
encode = _encoder.encode
decode_request = msgspec.json.Decoder(Request).decode
decode_reply = msgspec.json.Decoder(Reply).decode
decode_reading = msgspec.json.Decoder(Reading).decode


def checked_decoder(kind: type[T], most_bytes: int = MOST_CONTROL_BYTES) -> Callable[[bytes], T]:
    """Return the decoder of a control record, which is small and flat.

    It raises for what is none; `limits.attempt` makes a reason of that.
    """
    decode = msgspec.json.Decoder(kind).decode

    def decode_checked(value: bytes) -> T:
        if len(value) > most_bytes:
            raise ValueError(f"it has {len(value)} bytes, the limit is {most_bytes} bytes")
        if is_too_deep(value):
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        return decode(value)

    return decode_checked


decode_death = checked_decoder(Death)
decode_cancellation = checked_decoder(Cancellation)
decode_offer = checked_decoder(Offer)
decode_heartbeat = checked_decoder(Heartbeat)
