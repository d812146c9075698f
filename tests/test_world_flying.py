"""Things that fly about: in every class alike, shared by siblings before the onset, seen, and no larger a file."""

from dataclasses import fields, replace

import av
import numpy as np
import pytest
from test_world_rendering import decode, look_of, still_camera

from autodrive.world.files import pad_to_equal_length
from autodrive.world.fills import make_fills
from autodrive.world.flying import BURST_SPREAD_S, Drive, Specks, Track, make_flying

TIME_S = np.arange(-2.0, 2.0, 1 / 30)
SPEED_MPS = 12.0


def drive(contact: bool, wet: bool = False) -> Drive:
    ego = Track(SPEED_MPS * TIME_S, 0 * TIME_S, np.full(len(TIME_S), SPEED_MPS), 4.4)
    ahead = replace(ego, x_m=ego.x_m + 15.0)
    touch = np.array([SPEED_MPS + 2.2, 0.3, 0.7]) if contact else None
    return Drive(TIME_S, ego, [ahead], wet, event_s=1.0, contact_m=touch, jolts_s=[])


def specks_near_event(contact: bool, seed: int) -> int:
    start_s = make_flying(drive(contact), seed, 1).specks.start_s
    return int((np.abs(start_s - 1.0) < BURST_SPREAD_S + 0.01).sum())


def test_bursts_near_the_event_are_as_frequent_and_as_strong_with_contact_as_without():
    counts = np.array([[specks_near_event(contact, seed) for seed in range(200)] for contact in (True, False)])
    with_contact, without = (counts > 3).mean(axis=1)
    # Two shares of 0.6 of 200 draws each differ by 0.05 (one standard error).
    assert abs(with_contact - without) < 0.15
    assert np.median(counts[0][counts[0] > 3]) == pytest.approx(np.median(counts[1][counts[1] > 3]), abs=2)


def test_what_begins_before_the_onset_is_the_same_in_all_siblings_and_what_follows_is_not():
    def starts(number: int, seed: int) -> tuple[list[float], list[float]]:
        start_s = make_flying(drive(False), seed, number).specks.start_s
        return sorted(start_s[start_s < 0]), sorted(start_s[start_s >= 0])

    pairs = [(starts(0, seed), starts(1, seed)) for seed in range(20)]
    assert all(a[0] == b[0] for a, b in pairs)
    assert any(a[0] for a, _ in pairs)
    assert any(a[1] != b[1] for a, b in pairs)


def test_rain_throws_up_more_spray():
    num = [
        sum(len(make_flying(drive(False, wet), seed, 0).specks.start_s) for seed in range(40)) for wet in (False, True)
    ]
    assert num[1] > 1.5 * num[0]


def test_specks_are_drawn_while_they_last_and_where_they_are():
    still = {
        f.name: np.zeros((1, 3) if f.name in ("origin_m", "velocity_mps", "colour") else 1) for f in fields(Specks)
    }
    given = {"start_s": 0.1, "lasts_s": 0.2, "origin_m": (10.0, 1.0, 1.3), "size_m": 0.2, "slimness": 1.0}
    specks = Specks(**{name: np.broadcast_to(given.get(name, array), array.shape) for name, array in still.items()})
    flying = replace(make_flying(drive(False), 0, 0), time_s=np.arange(4) * 0.1 + 0.001, specks=specks)
    camera = still_camera(4)
    look = look_of("day")
    fills = make_fills(look, camera, [], flying)
    bare = make_fills(look, camera, [], None)
    drawn = [int((fills.frame == t).sum() - (bare.frame == t).sum()) for t in range(4)]
    assert drawn == [0, 1, 1, 0]
    last = np.flatnonzero(fills.frame == 1)[-1]  # what flies is drawn last
    focal = 56 / np.tan(np.radians(37.0))
    centre = fills.pixels[last, :4].mean(axis=0) / 16 + 0.5
    np.testing.assert_allclose(centre, [56 - focal * 0.1, 0.42 * 56], atol=0.1)


def test_padded_files_are_equally_long_and_still_decode(tmp_path):
    paths = [tmp_path / f"{i}.mp4" for i in range(3)]
    rng, written = np.random.default_rng(0), []
    for i, path in enumerate(paths):
        pictures = rng.integers(0, 40 * (i + 1), (5, 32, 32, 3), dtype=np.uint8)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=30, options={"qp": "20"})
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
            for picture in pictures:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        written.append(decode(path))
    assert len({path.stat().st_size for path in paths}) > 1
    pad_to_equal_length(paths)
    assert len({path.stat().st_size for path in paths}) == 1
    for path, before in zip(paths, written, strict=True):
        np.testing.assert_array_equal(decode(path), before)
