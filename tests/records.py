"""Records that tests are made of."""

from autodrive.schema import ROAD, Clip, View


def make_view(path="a.mp4", **changes) -> View:
    facts = {"path": str(path), "content_hash": "00", "native_fps": 29.97, "width": 112, "height": 56}
    return View(**(facts | changes))


def make_clip(view=None, **changes) -> Clip:
    facts = {
        "id": "a#0",
        "dataset": "test",
        "source_video_id": "a",
        "views": {ROAD: view or make_view()},
        "start_s": 0.0,
        "end_s": 4.0,
        "label": "collision",
        "event_time_s": 2.5,
        "split": "train",
    }
    return Clip(**(facts | changes))
