"""Pipelines of one's own: a few lines that say what becomes of a topic, checked when they are written."""

from easyremote.pipelines.building import Stream, registered, stream
from easyremote.pipelines.pipeline import Pipeline

__all__ = ["Pipeline", "Stream", "registered", "stream"]
