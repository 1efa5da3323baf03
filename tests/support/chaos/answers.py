"""What a call of each kind may be answered."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from chaos import large
from chaos.calls import EXHAUSTED, MALFORMED, PASSED, STREAMED, TIGHT, UNHEARD, UNKNOWN, WEIGHS, Call

_DEADLINE = {"DeadlineExceeded", "NoNodeAvailable"}
_ERRORS = {
    "fails": {"ValueError"},
    UNKNOWN: {"UnknownFunction"},
    MALFORMED: {"MalformedRequest"},
    PASSED: _DEADLINE,
    EXHAUSTED: {"ConnectionError", *_DEADLINE},
}
"""What a call of a kind must end with; of the other kinds a result."""
LETTERED = {UNKNOWN, MALFORMED, UNHEARD}
"""Kinds of which each sending is a dead letter, once."""
SUSPECTED = "CrashSuspect"
"""The answer to a call that was alone under way at two deaths: a kill counts as one."""


@dataclass(frozen=True)
class Final:
    """One final reply."""

    id: str
    topic: str
    at_ms: int
    status: str
    told: str
    """Result or error, as text to be compared."""
    error: str | None
    body: dict[str, Any]
    trace: bytes | None = None


def fits(call: Call, final: Final, versions: set[str]) -> bool:
    """Say whether a reply is one that the call may have, whoever was killed; `versions`: of the model."""
    if final.error == SUSPECTED:
        return call.kind not in LETTERED
    if call.kind in _ERRORS:
        return final.error in _ERRORS[call.kind]
    if final.error is not None:
        return call.kind == TIGHT and final.error in _DEADLINE
    return final.status == "ok" and _is_result(call, final.body, versions)


def _is_result(call: Call, body: dict[str, Any], versions: set[str]) -> bool:
    result = body.get("result")
    if call.kind == STREAMED:
        return result is None
    if not isinstance(result, dict):
        return False
    if call.kind == "which":
        version = body.get("model_version")
        return result.get("result") == {"call": call.id, "tag": version} and version in versions
    if call.kind == WEIGHS and not _weighed(call, result):
        return False
    return result.get("call") == call.id and result.get("value") == 2 * call.number


def _weighed(call: Call, result: dict[str, Any]) -> bool:
    asked = json.loads(call.value)
    sent = large.digest(large.text_of(call.id, call.size))
    return result.get("sha256") == sent and result.get("text") == (sent if asked["args"][large.ARGUMENT + 1] else None)
