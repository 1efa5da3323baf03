"""Runs a user's pipelines like the readings' stream: exactly once, on topics that are made where they are missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from easyremote.agents.partition_tasks import Names, PartitionTasks
from easyremote.errors import TopicError
from easyremote.pipelines.decoding import Decoded
from easyremote.pipelines.task import PipelineTask
from easyremote.topics.catalog import TopicDeclaration

if TYPE_CHECKING:
    from easyremote.pipelines import Pipeline
    from easyremote.settings import Settings
    from easyremote.topics.admin import TopicAdmin

__all__ = ["ensure_topics", "pipeline_agent", "run_pipeline"]

_PARTITIONS = 4
"""Of a source that is not there yet, as `readings` has."""


def pipeline_agent(pipeline: Pipeline) -> str:
    """Return the name of a pipeline's agent and, behind the prefix, of its group."""
    return f"pipeline.{pipeline.name}"


def ensure_topics(admin: TopicAdmin, namespace: str, pipeline: Pipeline) -> None:
    """Make a pipeline's topics where they are missing; those that are there stay as they are.

    Raises
    ------
    TopicError
        If its changelog has another number of partitions than its source, or its two sources differ in theirs.
    """
    known = admin.partitions()
    partitions = _partitions(known, namespace, pipeline)
    kept = known.get(namespace + pipeline.changelog, partitions)
    if kept != partitions:
        raise TopicError(
            f"{pipeline.changelog} has {kept} partitions and {pipeline.sources[0].topic} {partitions}: its "
            "state cannot be found there. Give the pipeline another name, and it begins anew"
        )
    reader = f"pipeline {pipeline.name}"
    common = {one.topic: "anyone" for one in pipeline.sources} | {pipeline.sink: reader}
    common |= {name: reader for one in pipeline.sources for name in (one.late, one.dead_letters)}
    declared = [
        TopicDeclaration(
            name=name,
            partitions=partitions,
            timestamp_type="LogAppendTime",
            key=", ".join(pipeline.key),
            value="JSON",
            written_by=writer,
            read_by=reader if writer == "anyone" else "anyone",
        )
        for name, writer in common.items()
    ]
    declared.append(
        TopicDeclaration(
            name=pipeline.changelog,
            partitions=partitions,
            cleanup="compact",
            retention_ms=-1,
            timestamp_type="LogAppendTime",
            key="key of the stream",
            value="its state, binary; and the next offset to read",
            written_by=reader,
            read_by=f"{reader}, when a worker takes a partition over",
        )
    )
    admin.ensure(one for one in declared if namespace + one.name not in known)


def _partitions(known: Mapping[str, int], namespace: str, pipeline: Pipeline) -> int:
    found = {one.topic: known[namespace + one.topic] for one in pipeline.sources if namespace + one.topic in known}
    if len(set(found.values())) > 1:
        told = " and ".join(f"{topic} {number}" for topic, number in found.items())
        raise TopicError(
            f"pipeline {pipeline.name} joins topics of different numbers of partitions, {told}: records of one key are "
            "not together. Send one of them to a new topic of as many partitions, stream(...).key_by(...).to(...)"
        )
    return next(iter(found.values()), _PARTITIONS)


def run_pipeline(
    settings: Settings, pipeline: Pipeline, group: str, failed: Callable[[Exception], None]
) -> PartitionTasks[Decoded]:
    """Return what runs a pipeline's partitions; `group` is the full name of its source's."""
    prefix = settings.namespace
    names = Names(
        group,
        tuple(prefix + one.topic for one in pipeline.sources),
        prefix + pipeline.changelog,
        f"{prefix}easyremote.{pipeline_agent(pipeline)}.{settings.node_id}",
    )
    return PartitionTasks(
        settings, names, lambda partition: PipelineTask(pipeline, prefix, settings.node_id, partition), failed
    )
