"""Records that tests are made of."""

from autodrive.schema import Clip, Views


def make_clip(**changes) -> Clip:
    facts = {
        "id": "a#0",
        "dataset": "test",
        "source_video_id": "a",
        "views": Views(road="a.mp4"),
        "start_s": 0.0,
        "end_s": 4.0,
        "native_fps": 29.97,
        "width": 112,
        "height": 56,
        "label": "collision",
        "event_time_s": 2.5,
        "split": "train",
        "content_hash": "00",
    }
    return Clip(**(facts | changes))
