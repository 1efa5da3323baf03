import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from easyremote import Client
from easyremote.clock import now_ms
from easyremote.errors import CallError
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import READINGS, REPLIES, declarations
from easyremote.topics.producer import RecordProducer, is_refused
from history import everything
from workers import tail

pytestmark = pytest.mark.broker


def test_records_in_order_stay_so_while_the_others_change_producers(settings: Settings) -> None:
    TopicAdmin(settings).ensure(declarations())
    producer = RecordProducer(settings)
    count = 2_000
    for number in range(count):
        producer.send(settings.namespace + READINGS, b"%d" % number, partition=1, in_order=True)
        producer.send(settings.namespace + REPLIES, b"%d" % number, partition=1)
    assert producer.close() == 0
    with tail(settings, READINGS) as readings:
        ordered = [int(message.value() or b"") for message in readings.wait_for(lambda all_: len(all_) >= count)]
    with tail(settings, REPLIES) as replies:
        others = [int(message.value() or b"") for message in replies.wait_for(lambda all_: len(all_) >= count)]
    assert ordered == list(range(count))
    assert sorted(others) == list(range(count))


def test_who_asks_for_errors_alone_is_told_of_nothing_else(settings: Settings) -> None:
    TopicAdmin(settings).ensure(declarations())
    producer = RecordProducer(settings, tells="errors")
    told: list[object] = []
    producer.send(settings.namespace + REPLIES, b"good", on_delivery=lambda *report: told.append(report))
    producer.send(settings.namespace + REPLIES, b"lost", partition=99, on_delivery=lambda *report: told.append(report))
    assert producer.close() == 0
    assert len(told) == 1


def test_a_client_that_is_closed_leaves_no_thread_and_says_so_when_it_is_used(settings: Settings) -> None:
    TopicAdmin(settings).ensure(declarations())
    threads = psutil.Process().num_threads
    with Client(settings, direct=True) as client:
        pass
    before = threads()
    for _ in range(3):
        with Client(settings, direct=True) as client:
            pass
    assert threads() == before
    with pytest.raises(CallError, match="closed"):
        client.submit("echo", "x")


def test_a_partition_that_is_not_there_is_told_by_the_report_though_the_topic_is_known(settings: Settings) -> None:
    TopicAdmin(settings).ensure(declarations())
    producer = RecordProducer(settings)
    topic, told = settings.namespace + REPLIES, []
    producer.deliver_blocking(topic, b"good", partition=0)
    producer.send(topic, b"lost", partition=99, on_delivery=lambda error, message: told.append((error, message)))
    assert producer.close() == 0
    [(error, message)] = told
    assert error is not None
    assert is_refused(error)
    assert message.topic() == topic


def test_what_a_process_had_in_its_hands_when_it_was_stopped_is_not_sent_when_it_wakes(settings: Settings) -> None:
    topic = settings.namespace + "readings"  # the broker writes down when it took a record
    TopicAdmin(settings).ensure(declarations())
    script = Path(__file__).parent.parent / "support" / "stopped.py"
    session_s = settings.group_session_ms / 1000
    stops: list[tuple[int, int]] = []
    with subprocess.Popen(
        [sys.executable, script, settings.bootstrap_servers(), topic, f"{session_s * 2 / 3}"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(3):
            time.sleep(0.5)  # it sends meanwhile
            stopped_ms = now_ms()
            process.send_signal(signal.SIGSTOP)
            time.sleep(session_s + 0.5)  # and is stopped meanwhile
            stops.append((stopped_ms, now_ms()))
            process.send_signal(signal.SIGCONT)
        time.sleep(0.5)
        process.kill()
    came = [(int(message.value() or b"0"), message.timestamp()[1]) for message in everything(settings, "readings")]
    stale = [(handed, took) for handed, took in came for stop, wake in stops if handed < stop and took >= wake]
    assert len(came) > 1_000
    assert not stale
