from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodrive.errors import InputError
from autodrive.video.chunker import default_stride_s, sliding_windows, window_label


def test_forty_seconds_are_seven_windows_of_six():
    windows = sliding_windows(40.0, 6.0, default_stride_s(6.0))
    assert len(windows) == 7
    assert windows[0] == (0, 6)
    assert windows[-1] == (pytest.approx(34), 40)


def test_a_little_over_forty_seconds_is_still_seven():
    windows = sliding_windows(40.07, 6.0, default_stride_s(6.0))
    assert len(windows) == 7
    assert windows[-1] == (pytest.approx(34.07), pytest.approx(40.07))


def test_a_shorter_video_is_one_window_of_its_own_length():
    assert sliding_windows(2.5, 6.0, 5.0) == [(0.0, 2.5)]
    assert sliding_windows(6.0, 6.0, 5.0) == [(0.0, 6.0)]


def test_a_remainder_adds_a_window_flush_with_the_end():
    assert sliding_windows(9.0, 6.0, 5.0) == [(0.0, 6.0), (3.0, 9.0)]


def test_a_small_remainder_is_not_folded_where_that_would_leave_a_gap():
    assert sliding_windows(12.5, 6.0, 6.0) == [(0.0, 6.0), (6.0, 12.0), (6.5, 12.5)]


@settings(deadline=None)
@given(duration_s=st.floats(0.2, 300), window_s=st.floats(0.5, 20), share=st.floats(0.05, 1))
def test_windows_cover_the_whole_video_and_nothing_else(duration_s, window_s, share):
    windows = sliding_windows(duration_s, window_s, share * window_s)
    assert windows[0][0] == 0
    assert windows[-1][1] == pytest.approx(duration_s)
    assert windows[-1][1] <= duration_s
    for (start, end), (following, _) in pairwise(windows):
        assert start < following <= end + 1e-5
        assert end - start == pytest.approx(window_s)


@pytest.mark.parametrize("window_s", [2, 4, 6, 20, 39, 60])
def test_default_stride_leaves_nothing_unseen(window_s):
    sliding_windows(120.0, window_s, default_stride_s(window_s))


def test_strides_that_leave_gaps_are_refused():
    with pytest.raises(InputError, match="stride_s=7"):
        sliding_windows(40, 6, 7)


def test_the_label_goes_to_windows_that_hold_the_event_half_open():
    assert window_label("collision", 6.0, 0.0, 6.0) == "normal"
    assert window_label("collision", 6.0, 6.0, 12.0) == "collision"
    assert window_label("collision", 5.99, 0.0, 6.0) == "collision"
    assert window_label("normal", None, 0, 6) == "normal"
    assert window_label(None, None, 0, 6) is None
    with pytest.raises(InputError, match="event_time_s"):
        window_label("collision", None, 0, 6)


@settings(deadline=None)
@given(event_s=st.floats(0, 39.99), stride_s=st.floats(1, 6))
def test_every_event_inside_the_video_is_in_some_window(event_s, stride_s):
    labels = {window_label("event", event_s, *window) for window in sliding_windows(40.0, 6.0, stride_s)}
    assert "event" in labels
