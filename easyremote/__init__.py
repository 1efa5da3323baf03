"""EasyRemote: calls and sensor streams over Apache Kafka.

Names are imported when they are first used, so that `import easyremote` costs an edge device nothing it does not
need. `app` is this process's Faust app: `faust -A easyremote worker` runs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from easyremote.errors import (
        BlobStoreError,
        BrokerUnavailable,
        CallCancelled,
        CallError,
        CallTimeout,
        ClaimUnavailable,
        ConfigError,
        CrashSuspect,
        DeadlineExceeded,
        EasyRemoteError,
        EdgeError,
        InvalidArguments,
        InvalidInput,
        MalformedRequest,
        ModelError,
        NoNodeAvailable,
        NotOfferedHere,
        PayloadTooLarge,
        RemoteError,
        TopicError,
        UnknownFunction,
        UnknownReplyTopic,
        WindowError,
    )
    from easyremote.inference.client import AsyncClient, CallOptions, Client
    from easyremote.inference.functions import function
    from easyremote.inference.models import BaseAIModel
    from easyremote.pipelines import stream
    from easyremote.worker import App

    app: App

__all__ = [
    "AsyncClient",
    "BaseAIModel",
    "BlobStoreError",
    "BrokerUnavailable",
    "CallCancelled",
    "CallError",
    "CallOptions",
    "CallTimeout",
    "ClaimUnavailable",
    "Client",
    "ConfigError",
    "CrashSuspect",
    "DeadlineExceeded",
    "EasyRemoteError",
    "EdgeError",
    "InvalidArguments",
    "InvalidInput",
    "MalformedRequest",
    "ModelError",
    "NoNodeAvailable",
    "NotOfferedHere",
    "PayloadTooLarge",
    "RemoteError",
    "TopicError",
    "UnknownFunction",
    "UnknownReplyTopic",
    "WindowError",
    "app",
    "function",
    "stream",
]

__version__ = "0.1.0"

_ERRORS = (
    "BlobStoreError",
    "BrokerUnavailable",
    "CallCancelled",
    "CallError",
    "CallTimeout",
    "ClaimUnavailable",
    "ConfigError",
    "CrashSuspect",
    "DeadlineExceeded",
    "EasyRemoteError",
    "EdgeError",
    "InvalidArguments",
    "InvalidInput",
    "MalformedRequest",
    "ModelError",
    "NoNodeAvailable",
    "NotOfferedHere",
    "PayloadTooLarge",
    "RemoteError",
    "TopicError",
    "UnknownFunction",
    "UnknownReplyTopic",
    "WindowError",
)
_HOMES = dict.fromkeys(_ERRORS, "easyremote.errors") | {
    "AsyncClient": "easyremote.inference.client",
    "BaseAIModel": "easyremote.inference.models",
    "CallOptions": "easyremote.inference.client",
    "Client": "easyremote.inference.client",
    "function": "easyremote.inference.functions",
    "stream": "easyremote.pipelines",
}


def __getattr__(name: str) -> Any:  # Any: each name has its own type, declared above for type checkers
    if name == "app":
        from easyremote.worker import build_app

        value: Any = build_app()
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'easyremote' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
