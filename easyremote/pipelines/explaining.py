"""What a pipeline does, in words and as a picture."""

from __future__ import annotations

from collections.abc import Iterable

from easyremote.pipelines.pipeline import Pipeline

__all__ = ["explain", "mermaid"]


def explain(pipeline: Pipeline) -> list[tuple[str, str]]:
    """Return what a pipeline does, line by line: what it is, and how.

    Examples
    --------
    >>> from easyremote import stream
    >>> dict(explain(stream("a").key_by("b").to("c", register=False)))["from"]
    'a'
    """
    lines = [("pipeline", pipeline.name)]
    for source in pipeline.sources:
        lines.append(("from", source.topic))
        if source.types:
            types = ", ".join(f"{name}: {kind.__name__}" for name, kind in source.types.items())
            lines.append(("checked", types))
        if source.steps:
            lines.append(("functions", f"{len(source.steps)}"))
    if pipeline.key:
        lines.append(("key", ", ".join(pipeline.key)))
    lines += pipeline.stage.described()
    lines.append(("to", pipeline.sink))
    if pipeline.stage.has_state:
        lines.append(("late records to", ", ".join(source.late for source in pipeline.sources)))
    lines.append(("unreadable to", ", ".join(source.dead_letters for source in pipeline.sources)))
    lines.append(("state and position in", pipeline.changelog))
    return lines


def mermaid(pipelines: Iterable[Pipeline]) -> str:
    """Return a Mermaid flowchart of pipelines: topics are rounded, what is done with their records is not."""
    nodes: dict[str, str] = {}
    edges: list[str] = []

    def node(kind: str, text: str) -> str:
        known = nodes.get(f"{kind}{text}")
        if known is None:
            known = nodes[f"{kind}{text}"] = f"{kind}{len(nodes)}"
            shown = text.replace('"', "'")
            edges.append(f'  {known}(["{shown}"])' if kind == "t" else f'  {known}["{shown}"]')
        return known

    for pipeline in pipelines:
        parts = [pipeline.name, *(f"{name}: {how}" for name, how in pipeline.stage.described())]
        if pipeline.key:
            parts.insert(1, f"by {', '.join(pipeline.key)}")
        work = node("p", "<br/>".join(parts))
        for source in pipeline.sources:
            begin = node("t", source.topic)
            edges.append(f"  {begin} --> {work}")
            odd = [source.dead_letters] + ([source.late] if pipeline.stage.has_state else [])
            edges += [f"  {work} -.-> {node('t', name)}" for name in odd]
        edges.append(f"  {work} --> {node('t', pipeline.sink)}")
        edges.append(f"  {work} <-.-> {node('t', pipeline.changelog)}")
    # A node's own line comes before the first edge that names it.
    return "\n".join(["flowchart LR", *edges])
