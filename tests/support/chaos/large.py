"""Large arguments and results as any client puts and gets them: by docs/protocol.md, and by no code of the package."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

ARGUMENT = 2
"""Which argument of `weighs` is the large one."""


def text_of(call: str, size: int) -> str:
    """Return the large argument of a call: no other has the same."""
    return (call * (size // len(call) + 1))[:size]


def put(blobs: Path, text: str) -> dict[str, Any]:
    """Put an argument into the store; return what the request says of it."""
    content = json.dumps(text).encode()
    key = hashlib.sha256(content).hexdigest()
    file = _file(blobs, key)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(uuid.uuid4().hex)
    unfinished.write_bytes(content)
    unfinished.replace(file)
    return {"arg": ARGUMENT, "sha256": key, "bytes": len(content)}


def get(blobs: Path, claim: dict[str, Any]) -> Any:  # Any: whatever a function returns
    """Return the result that a reply claims; what is wrong with it instead, if anything is."""
    file = _file(blobs, claim["sha256"])
    if not file.exists():
        return f"no blob {claim}"
    content = file.read_bytes()
    if len(content) != claim["bytes"] or hashlib.sha256(content).hexdigest() != claim["sha256"]:
        return f"another blob than {claim}, of {len(content)} bytes"
    return json.loads(content)


def digest(text: Any) -> str:
    """Return what stands for a large text in memory."""
    return hashlib.sha256(str(text).encode()).hexdigest()


def _file(blobs: Path, key: str) -> Path:
    return blobs / "calls" / key[:2] / key
