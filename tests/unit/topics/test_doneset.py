from random import Random

import pytest
from easyremote.topics.doneset import DoneSet, decode_done, encode_done
from hypothesis import given
from hypothesis import strategies as st

BROKERS_LIMIT_BYTES = 4_096


def _runs(offsets: set[int]) -> list[tuple[int, int]]:
    return [(offset, offset + 1) for offset in sorted(offsets)]


@given(st.integers(0, 2**50), st.sets(st.integers(1, 3_000), max_size=400))
def test_what_is_decoded_is_what_was_answered(base: int, above: set[int]) -> None:
    answered = {base + offset for offset in above}
    done = decode_done(base, encode_done(base, _runs(answered)))
    assert {offset for offset in range(base, base + 3_002) if offset in done} == answered


@given(st.integers(0, 2**50), st.integers(), st.integers(4_000, 2**40))
def test_what_does_not_fit_is_left_out_and_nothing_is_made_up(base: int, seed: int, span: int) -> None:
    answered = {base + offset for offset in Random(seed).sample(range(1, span), 2_000)}
    metadata = encode_done(base, _runs(answered))
    assert len(metadata) <= BROKERS_LIMIT_BYTES
    told = {offset for start, end in decode_done(base, metadata).runs() for offset in range(start, end)}
    assert told
    assert told <= answered
    assert max(told) < min(answered - told, default=2**63)


@given(st.text(max_size=40) | st.binary(max_size=40).map(lambda raw: "1" + raw.hex()))
def test_metadata_of_somebody_else_tells_nothing_and_stops_nothing(metadata: str) -> None:
    done = decode_done(7, metadata)
    assert all(7 <= start < end for start, end in done.runs())


@pytest.mark.parametrize("metadata", [None, "", "0", "1", "2AQM=", "1AQ==", "1gA==", "1%%%", "1AQA=", "1" + "/" * 40])
def test_metadata_that_is_broken_tells_nothing(metadata: str | None) -> None:
    assert not decode_done(7, metadata)


def test_a_call_that_hangs_under_a_million_answered_ones_takes_a_few_bytes() -> None:
    assert len(encode_done(5, [(6, 1_000_006)])) < 12
    assert 999_999 in DoneSet([(6, 1_000_006)])
