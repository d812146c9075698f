import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodrive.errors import InputError
from autodrive.video.frame_grid import EvenFrames, FrameGrid, FrameRateUnavailable, chosen_frames, highest_usable_fps
from autodrive.video.sampler import TIMESTAMP_TOLERANCE_S, choose_frames


def test_grid_starts_at_the_window_and_is_even():
    np.testing.assert_allclose(FrameGrid(2).timestamps(2.0, 6.0, 30), [2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5])


def test_phase_moves_the_grid_by_its_share_of_a_frame():
    np.testing.assert_allclose(FrameGrid(1).timestamps(2.0, 4.0, 30, phase=0.25), [2.25, 3.25])


def test_short_window_still_has_one_frame():
    assert FrameGrid(1).timestamps(1.0, 1.2, 30).tolist() == [1.0]


@settings(deadline=None)
@given(
    start_s=st.floats(0, 100),
    duration_s=st.floats(0.05, 60),
    native_fps=st.floats(1, 120),
    share=st.floats(0.01, 1.05),
    phase=st.floats(0, 1, exclude_max=True),
)
def test_no_time_leaves_the_window(start_s, duration_s, native_fps, share, phase):
    end_s = start_s + duration_s
    requested = FrameGrid(share * native_fps).timestamps(start_s, end_s, native_fps, phase)
    assert len(requested) >= 1
    assert np.all(np.diff(requested) > 0)
    assert requested[0] >= start_s - 1e-9
    assert requested[-1] < end_s


@settings(deadline=None)
@given(
    start_s=st.floats(0, 40),
    duration_s=st.floats(0.5, 8),
    native_fps=st.sampled_from([4.0, 10.0, 25.0, 30000 / 1001, 30.0, 60.0]),
    share=st.floats(0.95, 1.05),
)
def test_at_the_native_rate_every_frame_of_the_window_comes_once(start_s, duration_s, native_fps, share):
    pts_s = np.round(np.arange(int(50 * native_fps)) / native_fps, 3)  # rounded as Matroska rounds
    end_s = start_s + duration_s
    requested = FrameGrid(share * native_fps).timestamps(start_s, end_s, native_fps)
    chosen = choose_frames(pts_s, requested)
    inside = (pts_s >= start_s) & (pts_s < end_s)
    assert np.all(np.diff(chosen) == 1)
    # At the edges a frame may count to either side, since both times are rounded.
    assert abs(len(chosen) - inside.sum()) <= 1
    assert pts_s[chosen[0]] >= start_s - 0.06 / native_fps - 1e-3 or len(chosen) == 1
    assert pts_s[chosen[-1]] < end_s


def test_a_frame_that_begins_the_tolerance_later_is_on_screen_and_one_a_little_after_it_is_not():
    begins_s = TIMESTAMP_TOLERANCE_S * np.array([0.0, 1.0])
    assert choose_frames(begins_s, np.array([0.0])).tolist() == [1]
    assert choose_frames(1.1 * begins_s, np.array([0.0])).tolist() == [0]


def test_thirty_from_twenty_nine_ninety_seven_is_every_native_frame():
    fps = 30000 / 1001
    requested = FrameGrid(30).timestamps(0, 6, fps)
    assert choose_frames(np.arange(270) / fps, requested).tolist() == list(range(180))


def test_above_the_native_rate_is_refused_with_the_highest_usable_rate():
    with pytest.raises(FrameRateUnavailable, match=r"highest usable value is fps=10\.5") as error:
        FrameGrid(15).timestamps(0, 5, 10.0)
    assert error.value.native_fps == 10
    assert highest_usable_fps(10.0) == 10.5
    assert len(FrameGrid(10.5).timestamps(0, 5, 10.0)) == 50


@pytest.mark.parametrize("arguments", [(3, 3, 5, 30), (-1, 3, 5, 30), (0, 3, 0, 30), (0, 3, 5, 0), (0, 3, 5, 30, 1.0)])
def test_impossible_requests_are_refused(arguments):
    with pytest.raises(InputError):
        FrameGrid(arguments[2]).timestamps(*arguments[:2], *arguments[3:])


def test_the_frame_on_screen_is_the_last_one_begun():
    pts_s = np.array([0.0, 0.1, 0.2, 0.5])
    requested = np.array([0.0, 0.09, 0.1, 0.49, 0.5, 9.0])
    assert choose_frames(pts_s, requested).tolist() == [0, 0, 1, 2, 3, 3]


def test_before_the_first_frame_it_is_the_first_one():
    assert choose_frames(np.array([0.2, 0.3]), np.array([0.0, 0.25])).tolist() == [0, 0]


def test_timestamps_rounded_to_a_millisecond_do_not_shift_the_frame():
    pts_s = np.round(np.arange(300) / 30, 3)
    requested = FrameGrid(15).timestamps(0, 10, 30)
    assert choose_frames(pts_s, requested).tolist() == list(range(0, 300, 2))


def test_a_frame_that_has_not_begun_is_not_shown():
    """A millisecond's rounding is forgiven, and no more: 2 ms before its time a frame is not on screen."""
    pts_s = np.array([0.0, 0.033, 0.066])
    assert choose_frames(pts_s, np.array([0.033 - 0.0005, 0.066 - 0.002])).tolist() == [1, 1]


def test_phase_is_scaled_down_where_the_last_frame_has_less_room():
    assert FrameGrid(4).timestamps(0, 2.4, 30, phase=0.9)[-1] == pytest.approx((9 + 0.9 * 0.6) / 4)


@settings(deadline=None)
@given(
    first=st.integers(0, 200),
    native_frames=st.integers(1, 400),
    native_fps=st.floats(1, 120),
    count=st.integers(1, 64),
)
def test_even_frames_are_those_of_the_published_loaders(first: int, native_frames: int, native_fps: float, count: int):
    """`np.linspace` over the indices of a window's frames, rounded, as in `llava/utils/media.py`."""
    start_s, end_s = first / native_fps, (first + native_frames) / native_fps
    requested_s = EvenFrames(count).timestamps(start_s, end_s, native_fps, phase=0.5)
    published = np.round(np.linspace(0, native_frames - 1, count)).astype(int)
    assert (choose_frames(np.arange(1000) / native_fps, requested_s) - first).tolist() == published.tolist()
    assert requested_s[-1] < end_s
    assert EvenFrames(count).rate(end_s - start_s) == pytest.approx(count / (end_s - start_s))


def test_frames_are_chosen_by_their_rate_or_by_their_number():
    assert chosen_frames(2, None) == FrameGrid(2)
    assert chosen_frames(None, 8).num_frames(4.0) == 8
    for fps, num_frames in ((2, 8), (None, None)):
        with pytest.raises(InputError, match="num_frames"):
            chosen_frames(fps, num_frames)
