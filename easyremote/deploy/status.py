"""Whether the system is up, as anyone can see it from outside: by the heartbeats on `nodes`."""

from __future__ import annotations

from typing import Any

from msgspec import to_builtins

from easyremote.errors import EasyRemoteError
from easyremote.inference.nodes import NodeWatch
from easyremote.settings import Settings, load_settings

__all__ = ["system_status"]

_NEEDED = frozenset({"router", "streams", "inference"})
_CAUGHT_UP_S = 10.0


def system_status(settings: Settings | None = None) -> dict[str, Any]:
    """Return `ready`, `reason`, `kafka` and `workers`.

    Ready means: Kafka answers, every live worker says that all its roles are up, and among them are a router, the
    streams and a node.
    """
    found: dict[str, Any] = {"ready": False, "reason": "", "kafka": None, "workers": []}
    try:
        known = settings or load_settings()
        found["kafka"] = known.bootstrap_servers()
        watch = NodeWatch(known)
    except EasyRemoteError as error:
        return found | {"reason": str(error)}
    try:
        watch.wait_caught_up(_CAUGHT_UP_S)
        beats = watch.live()
    finally:
        watch.close()
    found["workers"] = [to_builtins(beat) for beat in beats]
    starting = [beat.node_id for beat in beats if set(beat.ready) != set(beat.roles)]
    missing = _NEEDED - {role for beat in beats for role in beat.ready}
    if starting:
        found["reason"] = f"still starting: {', '.join(starting)}"
    elif missing:
        found["reason"] = f"no live worker has: {', '.join(sorted(missing))}"
    return found | {"ready": not found["reason"]}
