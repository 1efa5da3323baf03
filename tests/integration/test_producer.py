import pytest
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import READINGS, REPLIES, declarations
from easyremote.topics.producer import RecordProducer
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
