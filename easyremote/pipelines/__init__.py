"""Pipelines of one's own: a few lines that say what becomes of a topic, checked when they are written."""

from easyremote.pipelines.building import Stream, stream
from easyremote.pipelines.pipeline import Pipeline
from easyremote.pipelines.registry import registered

__all__ = ["Pipeline", "Stream", "registered", "stream"]
