"""The values of the records that travel, as JSON by msgspec; `wire.py` adds what travels in their headers."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from easyremote.settings import Strategy

__all__ = [
    "Aggregate",
    "Alert",
    "Blob",
    "Cancellation",
    "Claim",
    "Death",
    "ErrorBody",
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
    "decode_cancellation",
    "decode_death",
    "decode_heartbeat",
    "decode_offer",
    "decode_reading",
    "decode_reply",
    "decode_request",
    "encode",
]

Name = Annotated[str, Meta(min_length=1)]
Priority = Literal["high", "normal", "low"]


class Blob(Struct, frozen=True, forbid_unknown_fields=True):
    """What is put into the blob store: it is known by its content, so no record can say where it is."""

    sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    bytes: Annotated[int, Meta(ge=0)]


class Claim(Blob, frozen=True, forbid_unknown_fields=True):
    """An argument whose JSON is in the blob store: the one of this position or name."""

    arg: Annotated[int, Meta(ge=0)] | str


class Request(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Value of a record on `requests`; only `function` is required.

    Arguments stay raw JSON until the function that takes them is known, so a router never decodes a picture.
    """

    function: str
    args: list[Raw] = []
    kwargs: dict[str, Raw] = {}
    id: str | None = None
    reply_to: str | None = None
    target: str | None = None
    affinity_key: str | None = None
    strategy: Strategy | None = None
    model: str | None = None
    priority: Priority = "normal"
    deadline_ms: int | None = None
    timeout_s: float | None = None
    stream: bool = False
    claims: list[Claim] = []
    """The arguments that are in the blob store; `null` stands in `args` or `kwargs` for each."""
    claim_result: bool = False
    """Whether the caller takes a large result from the blob store."""
    from_seq: Annotated[int, Meta(ge=0)] = 0
    """Of a stream: the first item that is sent."""

    def __post_init__(self) -> None:
        if not self.function:
            raise ValueError("`function` is empty")
        if self.timeout_s is not None and not (math.isfinite(self.timeout_s) and self.timeout_s >= 0):
            raise ValueError(f"`timeout_s` is {self.timeout_s} s, not a time of 0 s or more")
        for claim in self.claims:
            if isinstance(claim.arg, int) and claim.arg >= len(self.args):
                raise ValueError(f"`claims` names argument {claim.arg}, `args` has {len(self.args)}")


class ErrorBody(Struct, frozen=True):
    """What went wrong: the error's class, what it says, whether a second try can help."""

    type: str
    message: str
    retriable: bool = False


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
    seq: int | UnsetType = UNSET
    """The item's number, from 0; at the end, how many items there are."""
    final: bool | UnsetType = UNSET


class Cancellation(Struct, frozen=True):
    """Value of a record on `cancellations`: the call that its caller withdraws."""

    id: Name


class Death(Struct, frozen=True):
    """Value of a record on `suspects`: a process died while the call of the record's key was under way."""

    death: Name
    """Names the process, so that a death that is told twice is one."""
    told_by: Name
    calls: int
    """How many were under way at it; each has a record of its own."""


class ModelState(Struct, frozen=True):
    """A model that a node holds, and which version of it."""

    name: str
    version: str
    loaded: bool
    load_s: float = 0.0
    """How long loading it took, s; 0: not known."""
    state: Literal["ready", "loading", "failed", "unloaded"] = "ready"
    """Of the last order: `failed` leaves the version that answered before in its place."""
    coming: str | None = None
    """The version that is being loaded, or that failed."""
    reason: str | None = None
    """Why it failed."""
    previous: str | None = None
    """The version that is kept in memory to go back to."""
    since: dict[int, int] = {}
    """From which offset on of each partition this version answers every call."""
    order_id: str | None = None
    """The last order on `models` that this node has dealt with."""


class GpuState(Struct, frozen=True):
    """The GPU on which a node's models run."""

    name: str
    memory_used_bytes: int
    """By all processes."""
    memory_total_bytes: int
    utilisation_percent: float | None = None
    """None: the driver does not say."""


class Heartbeat(Struct, frozen=True, kw_only=True):
    """Value of a record on `nodes`, keyed by `node_id`: what a worker is doing right now.

    A record without a value (a tombstone) says that the node left.
    """

    node_id: str
    sent_ms: int
    roles: list[str]
    ready: list[str]
    """The roles that are up; the worker is ready when these are all its roles."""
    node_type: str | None = None
    pool: str | None = None
    partitions: list[int] = []
    """The partitions of `inference.<pool>` that this node holds."""
    functions: list[str] = []
    models: list[ModelState] = []
    function_models: dict[str, str] = {}
    """The model that answers a function, for the functions that have one."""
    in_flight: int = 0
    hung: int = 0
    """Calls past their limit whose threads have not come back."""
    total_requests: int = 0
    failed_requests: int = 0
    mean_response_s: float = 0.0
    cost_ms: dict[str, float] = {}
    """Learned ms per item, by function."""
    cpu_percent: float = 0.0
    memory_percent: float = 0.0
    gpu: GpuState | None = None


class FunctionInfo(Struct, frozen=True, kw_only=True):
    """How one function of a node is called."""

    name: str
    doc: str = ""
    """The first line of its docstring."""
    arguments: dict[str, Any]  # Any: JSON Schema
    """JSON Schema of an object with the arguments by name, in the order in which `args` takes them."""
    result: dict[str, Any]  # Any: JSON Schema
    """JSON Schema of the result; of each item where it is streamed."""
    model: str | None = None
    """Name of the model that answers, where one does."""
    stream: bool = False
    """Whether it yields its result item by item."""


class Offer(Struct, frozen=True, kw_only=True):
    """Value of a record on `functions`, keyed by `node_id`: all that a node offers, so that none of it can be stale.

    A record without a value says that the node left.
    """

    node_id: str
    pool: str
    functions: list[FunctionInfo]


class Reading(Struct, frozen=True, kw_only=True, gc=False):
    """Value of a record on `readings`: one measurement of one metric of one device, at its event time."""

    device_id: Name
    metric: Name
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
decode_death = msgspec.json.Decoder(Death).decode
decode_cancellation = msgspec.json.Decoder(Cancellation).decode
decode_offer = msgspec.json.Decoder(Offer).decode
decode_heartbeat = msgspec.json.Decoder(Heartbeat).decode
