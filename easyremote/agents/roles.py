"""The Faust agents of a worker's roles, each on a channel that a batch source fills."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import structlog

from easyremote.agents.channel import SourceChannel
from easyremote.agents.pipelines import pipeline_agent
from easyremote.pipelines import registered
from easyremote.topics.catalog import RETRIES

if TYPE_CHECKING:
    import faust

    from easyremote.settings import Settings
    from easyremote.topics.source import BatchSource

__all__ = ["Agents", "Handler"]

log = structlog.get_logger(__name__)

Handler = Callable[[Any, Any], Coroutine[Any, Any, None]]
"""Takes an event and the source that it came from."""


class Agents:
    """The Faust agents of this worker's roles, each on a channel that its source fills.

    They exist before the app starts, as Faust wants it; what handles their events is told when it is up.
    """

    def __init__(self, app: faust.App, settings: Settings) -> None:
        self._app = app
        self._handlers: dict[str, tuple[Handler, BatchSource[Any]]] = {}
        self.channels: dict[str, Any] = {}  # Any: Faust's channel, whose type leaves `send` open
        self._roles = settings.roles
        for name in ("router", *RETRIES.values()) if "router" in settings.roles else ():
            self._add(name)
        if "streams" in settings.roles:
            self._add("streams")

    def add_pipelines(self) -> None:
        """Add those of the pipelines, once all modules that define some are imported."""
        if "streams" in self._roles:
            for pipeline in registered.values():
                self._add(pipeline_agent(pipeline))

    def _add(self, name: str) -> None:
        self.channels[name] = SourceChannel(self._app)
        self._app.agent(self.channels[name], name=f"easyremote.{name}")(self._agent(name))

    def handle(self, name: str, handler: Handler, source: BatchSource[Any]) -> None:
        """Say who handles the events of an agent's source."""
        self._handlers[name] = (handler, source)

    def _agent(self, name: str) -> Callable[[Any], Coroutine[Any, Any, None]]:
        async def agent(stream: Any) -> None:  # Any: Faust's stream of whatever the source decodes
            async for event in stream:
                handler, source = self._handlers[name]
                try:
                    await handler(event, source)
                except Exception as error:
                    # An event that an agent drops is lost; a worker that ends reads it again.
                    log.exception("an agent failed", agent=name)
                    await self._app.crash(error)
                    raise

        return agent
