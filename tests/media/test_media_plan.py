"""Which frames are worth decoding, and one clock for a chunk."""

from hypothesis import given
from hypothesis import strategies as st

from streamproc.adapters.media_plan import WRAP_S, PacketInfo, Segment, Timeline, choose_frames


def packets(*, seconds: float = 2.0, fps: int = 25, gop: int = 50) -> list[PacketInfo]:
    return [PacketInfo(at_s=n / fps, key=n % gop == 0) for n in range(int(seconds * fps))]


def times(found: tuple[Segment, ...], of: list[PacketInfo]) -> list[float]:
    return [of[index].at_s for segment in found for index in segment.wanted]


def test_a_key_frame_every_two_seconds_is_filled_in_once_a_second() -> None:
    chunk = packets()

    assert [0.0, 1.0] == times(choose_frames(chunk, duration_ms=2000, frame_interval_ms=1000, max_frames=8), chunk)


def test_key_frames_that_are_frequent_enough_are_all_that_is_decoded() -> None:
    chunk = packets(gop=25)
    found = choose_frames(chunk, duration_ms=2000, frame_interval_ms=1000, max_frames=8)

    assert (Segment(first=0, wanted=(0,)), Segment(first=25, wanted=(25,))) == found


def test_of_many_key_frames_those_nearest_to_the_grid_are_taken() -> None:
    chunk = packets(gop=1)

    assert [0.0, 1.0] == times(choose_frames(chunk, duration_ms=2000, frame_interval_ms=1000, max_frames=8), chunk)


def test_a_key_frame_of_a_new_scene_stands_in_for_the_frame_of_its_time() -> None:
    chunk = [PacketInfo(at_s=n / 25, key=n in {0, 32}) for n in range(50)]
    found = choose_frames(chunk, duration_ms=2000, frame_interval_ms=1000, max_frames=8)

    assert (Segment(first=0, wanted=(0,)), Segment(first=32, wanted=(32,))) == found


def test_a_long_chunk_is_seen_at_most_max_frames_times() -> None:
    chunk = packets(seconds=10)

    assert 4 == len(times(choose_frames(chunk, duration_ms=10_000, frame_interval_ms=100, max_frames=4), chunk))


def test_pictures_shown_before_their_key_frame_are_never_chosen() -> None:
    chunk = [PacketInfo(at_s=0.0, key=True), PacketInfo(at_s=-0.08, key=False), PacketInfo(at_s=-0.04, key=False)]

    assert [0.0] == times(choose_frames(chunk, duration_ms=1000, frame_interval_ms=40, max_frames=8), chunk)


@given(
    st.lists(st.tuples(st.floats(-5, 40), st.booleans()), max_size=60),
    st.integers(1, 10_000),
    st.integers(1, 5_000),
    st.integers(1, 20),
)
def test_any_packets_give_frames_inside_the_chunk_and_no_more_than_allowed(
    entries: list[tuple[float, bool]], duration_ms: int, interval_ms: int, max_frames: int
) -> None:
    chunk = [PacketInfo(at_s=at_s, key=key) for at_s, key in entries]
    found = choose_frames(chunk, duration_ms=duration_ms, frame_interval_ms=interval_ms, max_frames=max_frames)

    assert sum(len(segment.wanted) for segment in found) <= max_frames
    for segment in found:
        assert chunk[segment.first].key
        assert all(segment.first <= index for index in segment.wanted)
    assert all(at_s < duration_ms / 1000 for at_s in times(found, chunk))


def test_a_wrap_of_33_bits_goes_on_exactly() -> None:
    timeline = Timeline()
    before = WRAP_S - 0.04

    assert timeline.offset_s(0, before, 0.04) == 0.0
    assert timeline.offset_s(1, before, 0.02) == 0.0
    assert timeline.offset_s(0, 0.0, 0.04) == WRAP_S
    assert timeline.offset_s(1, 0.0, 0.02) == WRAP_S
    assert timeline.resets == 0


def test_a_gap_of_less_than_a_chunk_is_a_gap() -> None:
    timeline = Timeline()
    timeline.offset_s(0, 0.0, 0.04)

    assert timeline.offset_s(0, 5.0, 0.04) == 0.0
    assert timeline.resets == 0


def test_tracks_that_change_their_clock_one_after_the_other_stay_together() -> None:
    timeline = Timeline()
    for n in range(5):
        timeline.offset_s(0, 100 + n, 1.0)
        timeline.offset_s(1, 100 + n, 1.0)

    assert timeline.offset_s(0, 0.0, 1.0) == 105.0
    assert timeline.offset_s(1, 105.0, 1.0) == 0.0  # still the old clock
    assert timeline.offset_s(1, 1.0, 1.0) == 105.0
    assert timeline.resets == 1
