"""Which calls are not for this node: they came because it took a partition over, or because it offers less than before.

Such a call is passed on to the router, with this node as the one to avoid; see `FailedCalls.pass_on`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from easyremote.errors import NotOfferedHere

if TYPE_CHECKING:
    from easyremote.inference.functions import Registry
    from easyremote.topics.wire import Call

__all__ = ["refuse_stray"]


def refuse_stray(call: Call, node_id: str, registry: Registry) -> None:
    """Do nothing about a call that this node can run.

    Parameters
    ----------
    call : Call
        What came.
    node_id : str
        This node's.
    registry : Registry
        What it offers.

    Raises
    ------
    NotOfferedHere
        If the call's target is another node, or its function is not offered here, or not with the call's model.
    """
    if call.target is not None and call.target != node_id:
        raise NotOfferedHere(f"the call is for {call.target}, this is {node_id}")
    function = registry.get(call.function)
    if call.model is not None and call.model != function.model:
        raise NotOfferedHere(f"{call.function} is answered by {function.model or 'no model'} here, not {call.model}")
