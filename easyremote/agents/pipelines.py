"""Runs a user's pipelines like the readings' stream: exactly once, on topics that are made where they are missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from easyremote.agents.exactly_once import ExactlyOnce, Names
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
        If its changelog has another number of partitions than its source.
    """
    known = admin.partitions()
    partitions = known.get(namespace + pipeline.source, _PARTITIONS)
    kept = known.get(namespace + pipeline.changelog, partitions)
    if kept != partitions:
        raise TopicError(
            f"{pipeline.changelog} has {kept} partitions and {pipeline.source} {partitions}: its state cannot be found "
            "there. Give the pipeline another name, and it begins anew"
        )
    reader = f"pipeline {pipeline.name}"
    common = {pipeline.source: "anyone", pipeline.sink: reader, pipeline.late: reader, pipeline.dead_letters: reader}
    declared = [
        TopicDeclaration(
            name=name,
            partitions=partitions,
            timestamp_type="LogAppendTime",
            key=", ".join(pipeline.key),
            value="JSON",
            written_by=writer,
            read_by=reader if name == pipeline.source else "anyone",
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


def run_pipeline(
    settings: Settings, pipeline: Pipeline, group: str, failed: Callable[[Exception], None]
) -> ExactlyOnce[Decoded]:
    """Return what runs a pipeline's partitions; `group` is the full name of its source's."""
    prefix = settings.namespace
    names = Names(
        group,
        prefix + pipeline.source,
        prefix + pipeline.changelog,
        f"{prefix}easyremote.{pipeline_agent(pipeline)}.{settings.node_id}",
    )
    return ExactlyOnce(
        settings, names, lambda partition: PipelineTask(pipeline, prefix, settings.node_id, partition), failed
    )
