"""Does what is ordered of models on `models`: loads a version, warms it up, lets it take over; while calls run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog

from easyremote.errors import ConfigError
from easyremote.inference.models import models_of
from easyremote.inference.models.catalog import load_model_class, make_model, orderable_classes
from easyremote.inference.models.sources import check_ordered_weights
from easyremote.inference.slots import Held, Slot
from easyremote.threads import LongThread, take_each
from easyremote.topics.limits import shortened
from easyremote.topics.model_control import CONFIGURED, UNLOADED, ModelOrder, ModelSource, OrderWatch

if TYPE_CHECKING:
    from easyremote.inference.models import BaseAIModel
    from easyremote.inference.node import AINodeManager
    from easyremote.inference.service import NodeService
    from easyremote.settings import Settings
    from easyremote.threads import LongThread, take_each
from easyremote.topics.model_control import Wanted

__all__ = ["Swapper"]

log = structlog.get_logger(__name__)

_CAUGHT_UP_S = 10.0
_FINISH_S = 30.0
"""For the calls that wait for a model which is unloaded."""


class Swapper:
    """Obeys the orders that mean this node, one after another, on a thread of its own.

    Parameters
    ----------
    settings : Settings
        Who this node is, and which models it holds without an order.
    node : AINodeManager
        Offers the models.
    service : NodeService
        Runs them, and knows which offsets were read.
    changed : callable
        Called when the models or what is known of them change.
    """

    def __init__(
        self, settings: Settings, node: AINodeManager, service: NodeService, changed: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._node = node
        self._service = service
        self._changed = changed
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._watch: OrderWatch | None = None
        self._thread = LongThread(self._run, "model orders", stopping=self._stopping)

    def open(self) -> None:
        """Learn what is ordered, and begin to do it; before any call is taken.

        A model of which another version is ordered than the settings name is not offered until that is warm.

        Raises
        ------
        BrokerUnavailable
            If no broker answers.
        """
        self._watch = OrderWatch(self._settings, changed=self._wake.set)
        self._watch.wait_caught_up(_CAUGHT_UP_S)
        for order in self._orders():
            if order.wanted != CONFIGURED:
                self._node.withdraw(order.model)
        self._wake.set()
        self._thread.start()

    def close(self) -> None:
        """Obey no more; a version that is being loaded is abandoned."""
        self._stopping.set()
        self._wake.set()
        if self._watch is not None:
            self._watch.close()

    def _orders(self) -> list[ModelOrder]:
        assert self._watch is not None
        settings = self._settings
        return list(self._watch.meant_for(settings.node_id, settings.pool_name, self._node.node_type).values())

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            for order in self._orders():
                if self._stopping.is_set():
                    return
                # One that cannot be dealt with at all must not keep the others from it.
                take_each("orders for models", self._deal_with, [order], lambda one: f"{one.id} of {one.model[:80]}")
            if self._stopping.is_set():
                return

    def _deal_with(self, orders: Sequence[ModelOrder]) -> None:
        for order in orders:
            slot = self._node.slot(order.model)
            if not slot.is_settled(order.id):
                self._obey(slot, order)

    def _obey(self, slot: Slot, order: ModelOrder) -> None:
        try:
            if order.wanted == UNLOADED or (order.wanted == CONFIGURED and not self._is_configured(order.model)):
                self._unload(slot)
            else:
                self._swap(slot, order.wanted)
        except BaseException as error:  # a model's code may raise anything, SystemExit too, and what answered goes on
            log.exception("an order for a model failed", model=order.model, order=order.id)
            slot.fail(f"{type(error).__name__}: {error}")
            if slot.current is not None:
                self._service.executor.add_model(slot.current.model)
                self._node.offer(slot.current.model)
                self._service.executor.widen(slot.current.model)
        slot.settle(order.id)
        self._changed()

    def _allowed(self, path: str) -> str:
        """Return the path of a class that may be ordered here: importing a module runs whatever it holds.

        Raises
        ------
        ConfigError
            If this node's settings do not offer it.
        """
        offered = orderable_classes(self._settings)
        if path not in offered:
            raise ConfigError(
                f"this node's settings do not offer the class {shortened(path, 200)}: there are {', '.join(offered)}; "
                "EASYREMOTE_MODEL_CLASSES names more"
            )
        return path

    def _is_configured(self, name: str) -> bool:
        return any(model.name == name for model in models_of(self._settings))

    def _swap(self, slot: Slot, wanted: Wanted) -> None:
        held = slot.find(wanted)
        if held is None:
            slot.begin(wanted.version if isinstance(wanted, ModelSource) else str(wanted))
            self._changed()
            held = Held(wanted, self._made(slot.name, wanted))
        held.model.warm_up()
        self._service.executor.add_model(held.model)
        self._node.offer(held.model)
        self._service.executor.widen(held.model)
        slot.swap(held)
        # What was read is in a lane already, and may have been taken by the version before.
        slot.answers_from(self._service.ledger.read_to())
        log.info("a version answers", model=slot.name, version=held.model.version, from_offsets=slot.state().since)

    def _unload(self, slot: Slot) -> None:
        self._node.withdraw(slot.name)
        self._changed()
        if not self._service.executor.remove_model(slot.name, _FINISH_S):
            log.warning("a pass of an unloaded model still runs", model=slot.name)
        slot.end()

    def _made(self, name: str, wanted: Wanted) -> BaseAIModel:
        configured = {model.name: model for model in models_of(self._settings)}
        if isinstance(wanted, ModelSource) and wanted.path is not None:
            kind = load_model_class(self._allowed(wanted.path), "easyremote models")
        elif name in configured:
            kind = type(configured[name])
        else:
            raise ConfigError(f"this node's settings name no model {name!r}: say --class module:Class")
        if not isinstance(wanted, ModelSource):
            return configured[name]
        for weights in (wanted.weights, wanted.params.get("weights")):
            if weights is not None:
                check_ordered_weights(weights, self._settings)
        model = make_model(kind, wanted.weights, wanted.params, self._settings.backend)
        if model.name != name:
            raise ConfigError(
                f"{wanted.path} is called {model.name!r}, not {name!r}: give it that `name`, or load that"
            )
        model.version = wanted.version
        return model
