"""The work of a pipeline on one partition: a batch in, records for its topics out."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from easyremote.pipelines.decoding import Decoded
from easyremote.pipelines.pipeline import Pipeline
from easyremote.topics.events import Batch
from easyremote.topics.odd_records import Place, dead_letter, late_record
from easyremote.topics.transactions import Output
from easyremote.windows import WindowResult

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
        self._pipeline = pipeline
        self._node_id = node_id
        self._sink = namespace + pipeline.sink
        source = namespace + pipeline.source
        self._late = Place(namespace + pipeline.late, source, partition)
        self._dead = Place(namespace + pipeline.dead_letters, source, partition)
        self._kernel = pipeline.kernel()

    def step(self, batch: Batch[Decoded], now_ms: int) -> list[Output]:
        """Take a batch in; return results, late records and dead letters."""
        content = batch.content
        outputs: list[Output] = []
        if content.rows is not None:
            effects = self._kernel.step(content.rows, now_ms)
            outputs += self._told(effects.results)
            outputs += [
                late_record(self._late, content.messages[content.places[late.place]], late, (late.start, late.end))
                for late in effects.late
            ]
        for place, error in content.malformed:
            outputs.append(dead_letter(self._dead, content.messages[place], error, self._node_id))
        return outputs

    def tick(self, now_ms: int) -> list[Output]:
        """Close the windows of what is silent."""
        return self._told(self._kernel.close_idle(now_ms))

    def changes(self) -> list[tuple[bytes, bytes | None]]:
        """Return what has changed, for the changelog."""
        return self._kernel.changes()

    def restore(self, key: bytes, content: bytes) -> None:
        """Put a key back from the changelog."""
        self._kernel.restore(key, content)

    def _told(self, results: Iterable[WindowResult]) -> list[Output]:
        outputs = []
        for one in results:
            bounds = {"window_start": one.start, "window_end": one.end}
            end = {"revision": one.revision, "final": one.final}
            record = dict(zip(self._pipeline.key, one.key, strict=True)) | bounds | one.values | end
            key = one.key[0] if len(one.key) == 1 and isinstance(one.key[0], str) else None
            outputs.append(Output(self._sink, key.encode() if key is not None else _encode(one.key), _encode(record)))
        return outputs
