"""The work of a pipeline on one partition: a batch in, records for its topics out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from easyremote.pipelines.decoding import READ, Decoded
from easyremote.pipelines.pipeline import Pipeline
from easyremote.pipelines.stages import Key, Origin, Result, Told
from easyremote.topics.deliveries import Output
from easyremote.topics.events import Batch
from easyremote.topics.odd_records import Place, dead_letter, key_of, late_record, window_letter
from easyremote.windows.guarding import Failed

if TYPE_CHECKING:
    from confluent_kafka import Message

    from easyremote.windows.watermarks import Heard


__all__ = ["PipelineTask"]

_encode = msgspec.json.Encoder().encode


class PipelineTask:
    """One partition of a pipeline.

    Parameters
    ----------
    pipeline : Pipeline
        What it does.
    namespace : str
        Before all topics' names.
    node_id : str
        Named in dead letters.
    partition : int
        Its number.
    """

    def __init__(self, pipeline: Pipeline, namespace: str, node_id: str, partition: int) -> None:
        self._node_id = node_id
        self._sink = namespace + pipeline.sink
        self._sides = {namespace + source.topic: side for side, source in enumerate(pipeline.sources)}
        self._late, self._dead = (
            [
                Place(namespace + to, namespace + source.topic, partition, pipeline.name)
                for to, source in zip(names, pipeline.sources, strict=True)
            ]
            for names in ([one.late for one in pipeline.sources], [one.dead_letters for one in pipeline.sources])
        )
        self._kernel = pipeline.stage.kernel(pipeline.key, Origin(namespace + pipeline.sources[0].topic, partition))
        self.resting = self._kernel.resting

    def step(self, batch: Batch[Decoded], now_ms: int) -> list[Output]:
        """Take a batch in; return results, late records and dead letters."""
        content = batch.content
        side = self._sides[batch.topic]
        outputs: list[Output] = []
        if content.rows is not None:
            told = self._kernel.step(side, content.rows, now_ms)
            messages = content.messages
            if content.failed or len(content.places) != len(messages):
                messages = [messages[place] for place in content.places]
            outputs += self._told(told.results, messages)
            outputs += [
                late_record(
                    (self._late[side], self._dead[side]),
                    messages[late.place],
                    late,
                    (late.start, late.end),
                    self._node_id,
                )
                for late in told.late
            ]
            outputs += [self._dead_letter(side, messages, one) for one in told.failed]
            outputs += self._lost(told)
        outputs += [self._dead_letter(side, content.messages, one) for one in content.failed]
        return outputs

    def tick(self, now_ms: int, heard: Mapping[str, Heard] | None = None) -> list[Output]:
        """Close the windows of what is silent; `heard` is how long each topic was listened to, unset: until now."""
        told = self._kernel.close_idle(now_ms, None if heard is None else [heard[topic] for topic in self._sides])
        return [*self._told(told.results, []), *self._lost(told)]

    def changes(self) -> list[tuple[bytes, bytes | None]]:
        """Return what has changed, for the changelog."""
        return self._kernel.changes()

    def restore(self, key: bytes, content: bytes) -> None:
        """Put a key back from the changelog."""
        self._kernel.restore(key, content)

    def _dead_letter(self, side: int, messages: Sequence[Message], failed: Failed) -> Output:
        place, stage, error = failed
        return dead_letter(self._dead[side], messages[place], error, self._node_id, stage, has_stack=stage != READ)

    def _lost(self, told: Told) -> list[Output]:
        return [
            window_letter(self._dead[0], _key(one.key), one.known, one.error, self._node_id, one.stage)
            for one in told.windows
        ]

    def _told(self, results: Iterable[Result], messages: Sequence[Message]) -> list[Output]:
        outputs = []
        for one in results:
            key, record = one.key, one.record
            if key:
                its_key: bytes | None = _key(key)
            else:
                its_key = None if one.place is None else key_of(messages[one.place])
            outputs.append(Output(self._sink, its_key, record if isinstance(record, bytes) else _encode(record)))
        return outputs


def _key(key: Key) -> bytes:
    return key[0].encode() if len(key) == 1 and isinstance(key[0], str) else _encode(key)
