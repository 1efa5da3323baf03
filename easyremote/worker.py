"""The composition root: builds the Faust app of one worker from the settings, role by role."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, overload

import faust
import structlog
from faust.app.base import BootStrategy
from faust.types import TopicT
from mode import Service
from yarl import URL

from easyremote.agents.arrived import decode_arrived
from easyremote.agents.devices import DeviceService
from easyremote.agents.heartbeat import HeartbeatService
from easyremote.agents.offers import OfferService
from easyremote.agents.partition_tasks import PartitionTasks
from easyremote.agents.pipelines import (
    ensure_topics,
    missing_sources,
    pipeline_agent,
    run_pipeline,
    wait_for_sources,
)
from easyremote.agents.retention import BlobRetention
from easyremote.agents.retries import Retries, keep_messages
from easyremote.agents.roles import Agents, Handler
from easyremote.agents.router import Router
from easyremote.agents.streams import decode_readings, readings_streams
from easyremote.clock import monotonic_s, now_ms
from easyremote.edge import EdgeDevice, SimulatedSensors
from easyremote.errors import TopicError
from easyremote.folders import private_folder
from easyremote.inference.answers import AnswerWatch
from easyremote.inference.cancellations import CancellationWatch
from easyremote.inference.functions import Function, registered
from easyremote.inference.models import BaseAIModel, models_of
from easyremote.inference.node import AINodeManager
from easyremote.inference.nodes import NodeWatch
from easyremote.inference.service import NodeService
from easyremote.inference.swapping import Swapper
from easyremote.logs import configure_logging
from easyremote.modules import import_module
from easyremote.pipelines import Pipeline, Stream
from easyremote.pipelines import registered as registered_pipelines
from easyremote.pipelines import stream as pipeline_from
from easyremote.pipelines.decoding import Decoder
from easyremote.settings import Settings, load_settings, user_data_dir
from easyremote.threads import on_give_up
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import READINGS, REQUESTS, RETRIES, declarations, inference_group
from easyremote.topics.certain import CertainProducer
from easyremote.topics.companion import Companion
from easyremote.topics.connection import faust_broker_url, faust_credentials
from easyremote.topics.doneset import Place
from easyremote.topics.events import Prepared, SourceEvent, to_loop
from easyremote.topics.producer import RecordProducer
from easyremote.topics.profiles import CALLS, STREAMS, Profile
from easyremote.topics.reply_topics import ReplyTopics
from easyremote.topics.retry import Backoff, ask_in_thread
from easyremote.topics.source import BatchSource, Claim, Prepare
from easyremote.topics.tails import Tails
from easyremote.topics.tenure import Tenure
from easyremote.windows import StreamProcessor

__all__ = ["Worker", "build_app"]

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")

_YOUNG_OBJECTS = 50_000
_SHARE_OF_SESSION = 2 / 3
_LOOK_S = 2.0
_NOT_KNOWN_YET = "kafka://127.0.0.1:9092"
"""What Faust is given while no Kafka is known; the app is told where it is before anything of Faust connects."""


class _Member:
    """Whether this process is a member of one source's group beyond doubt; the source is made after its receiver."""

    def __init__(self) -> None:
        self.tenure: Tenure | None = None

    def is_sure(self) -> bool:
        return self.tenure is None or self.tenure.is_sure()

    def ask_anew(self) -> None:
        if self.tenure is not None:
            self.tenure.doubt()


class Worker(Service):
    """Everything that one worker runs besides Faust itself.

    It prepares the topics, then starts the services of its roles, and stops them in reverse: first what takes work
    in, at last the heartbeat and the producer.
    """

    abstract = False

    def __init__(self, app: faust.App, settings: Settings, agents: Agents, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._app = app
        self._settings = settings
        self._agents = agents
        self._ready: set[str] = set()
        self._nodes: NodeWatch | None = None
        self._cancellations: CancellationWatch | None = None
        self._answers: AnswerWatch | None = None
        self._producer: RecordProducer | None = None
        self._reply_topics = ReplyTopics(settings, _topics_of(registered_pipelines.values()))
        self._calls: RecordProducer | None = None
        """Of the path of calls: it gives a record up before the group gives this process up."""
        self._tails: Tails | None = None
        self._certain: list[CertainProducer] = []
        self._heartbeat: HeartbeatService | None = None
        self._streams: list[PartitionTasks[Any]] = []
        self._swapper: Swapper | None = None
        self._parts: list[Service] = []
        self._forget_threads: Callable[[], None] = lambda: None

    async def on_start(self) -> None:
        """Start the roles."""
        settings = self._settings
        self._forget_threads = on_give_up(self._fail)
        admin = TopicAdmin(settings)
        created = await self._patiently("to create topics", admin.ensure, declarations(settings.pool_name))
        if created:
            log.info("topics created", topics=created)
        self._producer = RecordProducer(settings, patient=True)
        self._heartbeat = HeartbeatService(settings, self._producer, lambda: sorted(self._ready))
        if {"inference", "router"} & set(settings.roles) or _is_processor(settings):
            self._cancellations = await self._patiently("to follow cancellations", CancellationWatch, settings)
            await asyncio.to_thread(self._cancellations.wait_caught_up, 10.0)
            await self._start(BlobRetention(settings))
            delivery_s = settings.group_session_ms / 1000 * _SHARE_OF_SESSION
            self._calls = RecordProducer(settings, delivery_s=delivery_s, resends=False)
            self._tails = Tails(settings)
        if "inference" in settings.roles or _is_processor(settings):
            await self._start_inference(admin)
        if "router" in settings.roles:
            await self._start_router(admin)
        if "streams" in settings.roles:
            await self._start_streams(admin)
        if "edge" in settings.roles:
            await self._start_edge()
        await self._start(self._heartbeat)

    async def on_stop(self) -> None:
        """Stop in reverse."""
        self._forget_threads()
        self._ready.clear()
        for part in reversed([part for part in self._parts if part is not self._heartbeat]):
            await part.stop()
        for streams in self._streams:
            await asyncio.to_thread(streams.close)
        if self._swapper is not None:
            await asyncio.to_thread(self._swapper.close)
        if self._heartbeat is not None:
            await self._heartbeat.stop()
        if self._nodes is not None:
            await asyncio.to_thread(self._nodes.close)
        if self._cancellations is not None:
            await asyncio.to_thread(self._cancellations.close)
        if self._answers is not None:
            await asyncio.to_thread(self._answers.close)
        await asyncio.to_thread(self._close_senders)

    def _close_senders(self) -> None:
        for certain in self._certain:
            certain.close()
        for producer in filter(None, (self._calls, self._producer)):
            left = producer.close()
            if left:
                log.warning("records were not acknowledged before the end; their sources will repeat them", left=left)
        if self._tails is not None:
            self._tails.close()

    async def _patiently(self, what: str, request: Callable[..., Answer], *arguments: Any) -> Answer:  # Any: its own
        return await ask_in_thread(what, partial(request, *arguments), where=self._settings.bootstrap_servers())

    async def _start(self, part: Service) -> None:
        self._parts.append(part)
        part.beacon.reattach(self.beacon)
        await part.maybe_start()

    def _is_ready(self, role: str) -> None:
        self._ready.add(role)
        if self._heartbeat is not None and self._heartbeat.started:
            self._heartbeat.changed()

    def _fail(self, error: Exception) -> None:
        log.error("the worker cannot go on", error=str(error))
        self._app.loop.call_soon_threadsafe(asyncio.ensure_future, self._app.crash(error))

    async def _start_inference(self, admin: TopicAdmin) -> None:
        settings = self._settings
        assert self._producer is not None
        assert self._heartbeat is not None
        assert self._cancellations is not None
        node = await asyncio.to_thread(_build_node, settings)
        group = inference_group(settings.namespace, settings.pool_name)
        await self._patiently("to set up the nodes' group", admin.set_group_session, group)
        offer = OfferService(settings, node, self._producer)
        await self._start(offer)
        changed = _all(self._heartbeat.changed, offer.changed)
        self._answers = await self._patiently("to follow what is answered", AnswerWatch, settings)
        assert self._calls is not None
        assert self._tails is not None
        service = NodeService(
            settings,
            node,
            self._calls,
            changed,
            self._cancellations,
            self._answers,
            self._tails,
            self._reply_topics,
        )
        self._heartbeat.tell_about(node, service)
        self._swapper = Swapper(settings, node, service, changed)
        await self._patiently("to follow orders for models", self._swapper.open)
        await self._start(service)
        self.add_future(self._when_loaded(service))

    async def _when_loaded(self, service: NodeService) -> None:
        await service.loaded.wait()
        if "inference" in self._settings.roles:
            self._is_ready("inference")

    async def _start_router(self, admin: TopicAdmin) -> None:
        settings = self._settings
        assert self._producer is not None
        assert self._cancellations is not None
        self._nodes = await self._patiently("to follow the nodes", NodeWatch, settings)
        await asyncio.to_thread(self._nodes.wait_caught_up, 10.0)
        assert self._tails is not None
        member = _Member()
        certain = self._certain_of(member)
        router = Router(
            settings, certain, self._tails, self._nodes, self._fail, self._cancellations, self._reply_topics
        )
        requests = settings.namespace + REQUESTS
        source = await self._start_source(
            admin,
            "router",
            REQUESTS,
            CALLS,
            decode_arrived(requests, settings.namespace),
            router.handle,
            claim=router.claim,
            standing=router.standing,
        )
        member.tenure = source.tenure
        for delay_ms, name in RETRIES.items():
            member = _Member()
            certain = self._certain_of(member)
            retries = Retries(settings, certain, self._tails, settings.namespace + name, delay_ms, self._fail)
            delays = await self._start_source(
                admin,
                name,
                name,
                CALLS,
                keep_messages,
                retries.handle,
                claim=retries.claim,
                standing=retries.standing,
            )
            member.tenure = delays.tenure
        self.add_future(self._when_joined("router", source))

    def _certain_of(self, member: _Member) -> CertainProducer:
        """Return what sends on what one source has read: another one, which reads nothing, may stay in doubt."""
        assert self._calls is not None
        assert self._tails is not None
        certain = CertainProducer(self._calls, self._tails, member.is_sure, member.ask_anew)
        self._certain.append(certain)
        return certain

    async def _start_streams(self, admin: TopicAdmin) -> None:
        settings = self._settings
        group = self._group("streams")
        streams = await self._patiently("to follow states", readings_streams, settings, group, self._fail)
        self._streams.append(streams)
        profile = replace(STREAMS, tick_s=settings.commit_interval_ms / 1000)
        source = await self._start_source(
            admin, "streams", READINGS, profile, decode_readings, streams.handle, streams.restore
        )
        sources = [source]
        # Those first whose topics are there: what they write may be what others read.
        for pipeline in registered_pipelines.values():
            if settings.create_sources or not await asyncio.to_thread(
                missing_sources, admin, settings.namespace, pipeline
            ):
                sources.append(await self._start_pipeline(admin, pipeline))
            else:
                self.add_future(self._start_when_it_can(admin, pipeline))
        self.add_future(self._when_joined("streams", *sources))

    async def _start_when_it_can(self, admin: TopicAdmin, pipeline: Pipeline) -> None:
        await wait_for_sources(admin, self._settings.namespace, pipeline)
        log.info("all topics of a pipeline are there", pipeline=pipeline.name)
        try:
            await self._start_pipeline(admin, pipeline)
        except TopicError as error:
            self._fail(error)

    async def _start_pipeline(self, admin: TopicAdmin, pipeline: Pipeline) -> BatchSource[Any]:
        settings = self._settings
        name = pipeline_agent(pipeline)
        await self._patiently("to create a pipeline's topics", ensure_topics, admin, settings.namespace, pipeline)
        group = self._group(name)
        runner = await self._patiently("to follow states", run_pipeline, settings, pipeline, group, self._fail)
        self._streams.append(runner)
        profile = replace(STREAMS, tick_s=settings.commit_interval_ms / 1000)
        first, *others = [(one.topic, Decoder(pipeline, side).decode) for side, one in enumerate(pipeline.sources)]
        beside = None
        if others:
            decoders = {settings.namespace + topic: decode for topic, decode in others}
            beside = Companion(settings, self._group(name), decoders, profile)
        return await self._start_source(admin, name, first[0], profile, first[1], runner.handle, runner.restore, beside)

    async def _start_edge(self) -> None:
        settings = self._settings
        assert self._producer is not None
        if settings.device_id is not None:
            device = EdgeDevice(settings.device_id, settings.device_location)
            await self._start(DeviceService(settings, device, SimulatedSensors(settings.device_id), self._producer))
        self._is_ready("edge")

    def _group(self, name: str) -> str:
        return f"{self._settings.namespace}easyremote.{name}"

    async def _when_joined(self, role: str, *sources: BatchSource[Any]) -> None:
        for source in sources:
            await source.joined()
        self._is_ready(role)

    async def _start_source(  # noqa: PLR0913, PLR0917  # a source and who handles its events
        self,
        admin: TopicAdmin,
        name: str,
        topic: str,
        profile: Profile,
        decode: Callable[..., Any],
        handle: Handler,
        prepare: Prepare = lambda _partitions, _stopping: Prepared(),
        beside: Companion[Any] | None = None,
        claim: Claim | None = None,
        standing: Callable[[], dict[int, Place]] | None = None,
    ) -> BatchSource[Any]:
        group = self._group(name)
        await self._patiently(f"to set up group {group}", admin.set_group_session, group)
        emit: Callable[[SourceEvent[Any]], None] = to_loop(
            asyncio.get_running_loop(), self._agents.channels[name].hand_over
        )
        source: BatchSource[Any] = BatchSource(
            self._settings,
            self._settings.namespace + topic,
            group,
            profile,
            decode,
            emit,
            prepare=prepare,
            beside=beside,
            claim=claim,
            standing=standing,
        )
        self._agents.handle(name, handle, source)
        await self._start(source)
        return source


def _all(*calls: Callable[[], None]) -> Callable[[], None]:
    def call_all() -> None:
        for call in calls:
            call()

    return call_all


def _build_node(settings: Settings) -> AINodeManager:
    functions: list[Function] = []
    models: list[BaseAIModel] = []
    if "inference" in settings.roles:
        for module in settings.functions:
            import_module(module, "EASYREMOTE_FUNCTIONS")
        functions += registered
        models += models_of(settings)
    if _is_processor(settings):
        processor = StreamProcessor(settings.processor_id or settings.node_id, now_ms)
        functions += [Function(call.__name__, call) for call in processor.functions()]
    return AINodeManager(settings.node_type, models, functions, max_items=settings.max_items)


def _topics_of(pipelines: Iterable[Pipeline]) -> set[str]:
    return {topic for one in pipelines for topic in (one.sink, *(source.topic for source in one.sources))}


def _is_processor(settings: Settings) -> bool:
    """Say whether this worker answers the statistics functions: one with all roles, or one that is told to."""
    return "streams" in settings.roles and (settings.processor_id is not None or "inference" in settings.roles)


async def _await_kafka(settings: Settings, should_stop: Callable[[], bool]) -> None:
    """Wait until the Kafka of the settings is known and answers; what a wait is for is said once."""
    began, attempt, backoff = monotonic_s(), 0, Backoff()
    while not should_stop():
        # Looked for anew each time: an embedded broker may come up on another port than it had.
        where = settings.bootstrap_servers() if settings.knows_kafka() else str(settings.broker_state_file)
        if settings.knows_kafka() and await asyncio.to_thread(TopicAdmin(settings).answers, _LOOK_S):
            if attempt:
                log.warning("Kafka answers; this worker starts", where=where, after_s=round(monotonic_s() - began, 1))
            return
        attempt += 1
        if attempt == 1:
            is_known = settings.knows_kafka()
            cure = (
                "is it running?"
                if is_known
                else "no Kafka is known: set EASYREMOTE_KAFKA, or 'easyremote broker start'"
            )
            log.warning("this worker waits for Kafka", where=where, cure=cure)
        await asyncio.sleep(backoff.wait_s(attempt))


class _BootStrategy(BootStrategy):
    """Starts Faust's own clients only where an agent reads a Faust topic.

    Without one its consumer refuses to start, and its producer, which a topic's first `send` starts, would end the
    worker if no broker answers just then.
    """

    def _should_enable_kafka_consumer(self) -> bool:
        return any(isinstance(agent.channel, TopicT) for agent in self.app.agents.values())

    _should_enable_kafka_producer = _should_enable_kafka_consumer


class App(faust.App):
    """Faust's app, on which pipelines can be written."""

    BootStrategy = _BootStrategy
    before_start: Callable[[], None]
    """Called when all modules are imported, before anything runs."""
    known: Settings
    knew_kafka: bool
    """Whether it was known where Kafka is when this was made."""

    async def on_start(self) -> None:
        """Wait for Kafka, where a worker has been started before it."""
        await _await_kafka(self.known, lambda: self.should_stop)
        if not self.knew_kafka:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a setting that comes late: nothing of Faust has used it yet
                self.conf.broker = [URL(one) for one in faust_broker_url(self.known).split(";")]
        await super().on_start()

    @overload  # type: ignore[override]  # a str is iterable, too, but no channel of Faust
    def stream(
        self,
        channel: str,
        *,
        timestamp: str = "timestamp_ms",
        types: Mapping[str, type] | None = None,
        partitioned_by: tuple[str, ...] | None = None,
    ) -> Stream: ...
    @overload
    def stream(self, channel: AsyncIterable[Any], beacon: Any = None, **kwargs: Any) -> faust.StreamT[Any]: ...
    def stream(self, channel: Any, beacon: Any = None, **kwargs: Any) -> Any:
        """Begin a pipeline with a topic's name, as `easyremote.stream` does; with anything else a stream of Faust."""
        if isinstance(channel, str):
            return pipeline_from(channel, **kwargs)
        return super().stream(channel, beacon, **kwargs)

    def finalize(self) -> None:
        """Take the configuration as it is from here on."""
        if not self.finalized:
            self.before_start()
        super().finalize()


def build_app(settings: Settings | None = None) -> App:
    """Return the Faust app of this process: what `faust -A easyremote worker` runs.

    Parameters
    ----------
    settings : Settings, optional
        The environment's if unset.

    Raises
    ------
    ConfigError
        If a setting is wrong.
    """
    known = settings or load_settings()
    configure_logging(known.log_level)
    if known.data_dir == user_data_dir():
        private_folder(known.data_dir)
    private_folder(known.data_dir / "worker")
    app = App(
        f"{known.namespace}easyremote",
        broker=faust_broker_url(known) if known.knows_kafka() else _NOT_KNOWN_YET,
        broker_credentials=faust_credentials(known),
        producer_linger=0,
        stream_wait_empty=False,
        broker_max_poll_records=500,
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_bind="127.0.0.1",
        web_port=known.worker_port or 6066,
        web_enabled=known.worker_port != 0,
        datadir=known.data_dir / "worker",
        store="memory://",
    )
    app.known, app.knew_kafka = known, known.knows_kafka()
    # The worker's command line switches Faust's web server on by default; two workers of a machine would then clash.
    app.boot_strategy.enable_web = known.worker_port != 0
    # What has been imported lives as long as the process: looking through it at each collection is for nothing, and
    # records come by the thousand, so a young generation of the default 700 is collected all the time.
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 50)
    if "streams" in known.roles:
        for module in known.pipelines:
            import_module(module, "EASYREMOTE_PIPELINES")
    agents = Agents(app, known)
    app.before_start = agents.add_pipelines

    @app.service
    class _ThisWorker(Worker):
        def __init__(self, **kwargs: Any) -> None:  # Any: mode's own options
            super().__init__(app, known, agents, **kwargs)

    return app
