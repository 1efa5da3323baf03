"""What counts as listening to a partition, and what as a stall."""

from __future__ import annotations

from easyremote.topics.progress import Heard, Progress, Stall

PLACE = ("readings", 0)


def _reading(start: int | None = 0) -> Progress:
    progress = Progress()
    progress.give({PLACE: start})
    return progress


def _heard(progress: Progress, asked_ms: int, end: int) -> Heard:
    progress.compare(asked_ms, {PLACE: end}, asked_ms / 1000)
    return progress.heard()[PLACE]


def test_nothing_is_heard_before_an_end_is_known_and_reached() -> None:
    progress = _reading(None)
    assert progress.heard()[PLACE] == Heard(0, 0)
    assert _heard(progress, 1_000, 5) == Heard(0, 0)
    progress.read(*PLACE, 4)
    assert progress.heard()[PLACE] == Heard(0, 0)
    progress.read(*PLACE, 5)
    assert progress.heard()[PLACE] == Heard(1_000, 0)


def test_under_load_what_counts_is_an_end_of_a_moment_ago() -> None:
    progress = _reading()
    assert _heard(progress, 1_000, 10) == Heard(0, 0)
    for second in range(2, 10):
        # At each question the end is ahead, and what was the end at the one before is reached.
        progress.read(*PLACE, (second - 1) * 10)
        assert _heard(progress, second * 1_000, second * 10) == Heard((second - 1) * 1_000, 0)


def test_while_records_stand_unread_time_stands_still_and_the_break_does_not_count_afterwards() -> None:
    progress = _reading(7)
    assert _heard(progress, 1_000, 7) == Heard(1_000, 0)
    assert _heard(progress, 1_500, 7) == Heard(1_500, 0)
    for at_ms in range(2_000, 60_000, 500):
        assert _heard(progress, at_ms, 9) == Heard(1_500, 0)
    progress.read(*PLACE, 9)
    assert _heard(progress, 60_000, 9) == Heard(60_000, 58_500)
    assert _heard(progress, 60_500, 9) == Heard(60_500, 58_500)


def test_while_nobody_answers_time_stands_still_and_the_break_does_not_count_afterwards() -> None:
    progress = _reading(7)
    _heard(progress, 1_000, 7)
    assert progress.heard()[PLACE] == Heard(1_000, 0)
    assert _heard(progress, 31_000, 7) == Heard(31_000, 30_000)


def test_a_clock_that_is_put_back_or_on_is_no_silence() -> None:
    progress = _reading(7)
    _heard(progress, 10_000, 7)
    assert _heard(progress, 3_600_000, 7) == Heard(3_600_000, 3_590_000)
    assert _heard(progress, 10_000, 7) == Heard(10_000, 3_590_000)


def test_a_partition_that_comes_back_begins_anew() -> None:
    progress = _reading(7)
    _heard(progress, 1_000, 7)
    progress.take([0])
    progress.compare(1_500, {PLACE: 7}, 1.5)
    assert progress.heard() == {}
    progress.give({PLACE: 3})
    assert _heard(progress, 2_000, 7) == Heard(0, 0)


def _stalls(progress: Progress, seconds: range, end: int, *, drained: bool = True) -> list[Stall]:
    found = []
    for second in seconds:
        if drained:
            progress.drained(["readings"])
        found += progress.compare(second * 1_000, {PLACE: end}, float(second))
    return found


def test_a_partition_that_has_records_and_does_not_move_for_ten_seconds_is_told() -> None:
    progress = _reading(3)
    assert _stalls(progress, range(1_000, 1_010), 9) == []
    assert _stalls(progress, range(1_010, 1_012), 9) == [Stall("readings", 0, 3, 9)]


def test_a_partition_to_which_nothing_was_written_is_read_to_its_end() -> None:
    progress = _reading(None)
    assert _heard(progress, 1_000, 0) == Heard(1_000, 0)
    assert _stalls(progress, range(2, 60), 0) == []


def test_what_moves_or_stands_at_its_end_or_waits_behind_others_is_no_stall() -> None:
    progress = _reading(3)
    for second in range(1, 60):
        progress.read(*PLACE, second + 3)
        assert _stalls(progress, range(second, second + 1), 1_000) == []
    assert _stalls(progress, range(60, 90), progress._readings[PLACE].position or 0) == []
    assert _stalls(progress, range(90, 130), 1_000, drained=False) == []


def test_the_time_in_which_the_process_was_stopped_is_no_stall() -> None:
    progress = _reading(3)
    assert _stalls(progress, range(1, 4), 9) == []
    assert _stalls(progress, range(600, 605), 9) == []
