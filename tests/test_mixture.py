import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import make_clip, make_view

from autodrive.errors import InputError
from autodrive.labels import LabelSet
from autodrive.mixture.balancing import Balance
from autodrive.mixture.mixture import Mixture, Visit, VisitSchedule, sibling_blocks
from autodrive.mixture.selection import select_clips
from autodrive.schema import DataFile
from autodrive.video.frame_grid import FrameGrid

PAPER = ["normal"] * 430 + ["near_collision"] * 90 + ["collision"] * 10


def plan(balance: Balance, classes: list[str], seed: int = 0):
    return balance.plan(classes, np.random.default_rng(seed))


def test_natural_ratio_keeps_as_many_as_it_allows():
    equal = ["normal"] * 430 + ["near_collision"] * 430 + ["collision"] * 430
    thinned = plan(Balance(natural_ratio={"normal": 43, "near_collision": 9, "collision": 1}), equal)
    assert thinned.visits_per_class == {"normal": 430, "near_collision": 90, "collision": 10}
    assert len(set(thinned.visits)) == 530


def test_factors_repeat_every_clip_equally():
    upsampled = plan(Balance(factors={"normal": 1, "near_collision": 2, "collision": 15}), PAPER)
    assert upsampled.visits_per_class == {"normal": 430, "near_collision": 180, "collision": 150}
    assert set(Counter(v for v in upsampled.visits if PAPER[v] == "collision").values()) == {15}


def test_target_counts_give_the_papers_table_not_its_factors():
    upsampled = plan(Balance(target_counts={"normal": 43, "near_collision": 14, "collision": 11}), PAPER)
    assert upsampled.visits_per_class == {"normal": 430, "near_collision": 140, "collision": 110}
    repeats = Counter(v for v in upsampled.visits if PAPER[v] == "near_collision")
    assert set(repeats.values()) == {1, 2}


def test_equal_brings_every_class_to_the_largest():
    assert set(plan(Balance(equal=True), PAPER).visits_per_class.values()) == {430}


def test_modes_exclude_each_other():
    with pytest.raises(InputError, match="not several"):
        plan(Balance(equal=True, factors={"normal": 1}), PAPER)


def test_ratio_must_name_the_classes_there_are():
    with pytest.raises(InputError, match="name exactly these classes"):
        plan(Balance(natural_ratio={"normal": 43, "event": 10}), PAPER)


def test_subsample_is_seeded():
    balance = Balance(natural_ratio={"normal": 4, "near_collision": 2, "collision": 1})
    assert plan(balance, PAPER, 1) == plan(balance, PAPER, 1)
    assert plan(balance, PAPER, 1).visits != plan(balance, PAPER, 2).visits


def test_unknown_closed_question_is_refused():
    with pytest.raises(InputError, match="wether"):
        Mixture(closed_questions=["wether"])


def test_an_unknown_mean_is_refused():
    with pytest.raises(InputError, match=r"mixture\.loss_mean=clips: choose annotations or tokens"):
        Mixture(loss_mean="clips")  # type: ignore[arg-type]


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 5), st.integers(1, 30))
def test_every_epoch_visits_each_place_of_the_plan_once(num_visits: int, batch_size: int, seed: int, steps: int):
    schedule = VisitSchedule(tuple((i,) for i in range(num_visits)), batch_size, seed)
    stream = [visit for step in range(steps) for visit in schedule.batch(step)]
    assert [v.position for v in stream] == list(range(steps * batch_size))
    for start in range(0, len(stream) - num_visits + 1, num_visits):
        assert sorted(v.clip_index for v in stream[start : start + num_visits]) == list(range(num_visits))
    assert all(0 <= v.phase < 1 for v in stream)


FIFTY = tuple((i,) for i in range(50))


def test_a_batch_follows_from_seed_and_step_alone():
    unbroken = VisitSchedule(FIFTY, 16, seed=4)
    for step in range(20):
        unbroken.batch(step)
    assert VisitSchedule(FIFTY, 16, seed=4).batch(20) == unbroken.batch(20)
    assert VisitSchedule(FIFTY, 16, seed=5).batch(20) != unbroken.batch(20)


def labels(*names: str) -> LabelSet:
    entries = [{"name": n, "option": n, "sources": [n], "anomalous": n != "normal", "short": n} for n in names]
    return LabelSet("test", entries)


TWO = labels("normal", "collision")
MEMBERS = [("train", "normal"), ("train", "collision"), ("val", "normal"), ("test", "collision")]


def manifest(view=None, **changes):
    return [make_clip(view, id=f"{i}#0", split=s, label=c, **changes) for i, (s, c) in enumerate(MEMBERS)]


def test_selection_sorts_by_split_and_class():
    selection = select_clips(manifest(), TWO, FrameGrid(15), ("train", "val", "test"))
    assert selection.counts() == {
        "train": {"normal": 1, "collision": 1},
        "val": {"normal": 1},
        "test": {"collision": 1},
    }
    assert selection.dropped == []


def test_too_high_frame_rate_is_dropped_and_counted():
    slow = make_clip(make_view(native_fps=10), id="slow#0", split="train", label="normal")
    selection = select_clips([*manifest(), slow], TWO, FrameGrid(15), ("train",))
    assert [(d.item, d.reason) for d in selection.dropped] == [("slow#0", "frame_rate_too_high")]


def test_frame_rate_tolerance_is_five_percent():
    assert not select_clips(manifest(make_view(native_fps=28.9)), TWO, FrameGrid(30), ("train",)).dropped
    with pytest.raises(InputError, match=r"highest usable value is fps=29\.4"):
        select_clips(manifest(make_view(native_fps=28.0)), TWO, FrameGrid(30), ("train",))


def test_no_usable_frame_rate_names_the_highest():
    with pytest.raises(InputError, match=r"fps=10\.5"):
        select_clips(manifest(make_view(native_fps=10)), TWO, FrameGrid(30), ("train",))


def test_class_without_training_clips_is_named():
    with pytest.raises(InputError, match="near_collision"):
        select_clips(manifest(), labels("normal", "near_collision", "collision"), FrameGrid(15), ("train",))


def test_empty_split_is_named_with_what_was_set_aside():
    clips = [c for c in manifest() if c.split != "val"] + [make_clip(id="x#0", split="val", label=None)]
    with pytest.raises(InputError, match=r"val split is empty \(set aside: 1 no_label\)"):
        select_clips(clips, TWO, FrameGrid(15), ("train", "val"))


def test_both_messages_name_the_same_highest_rate():
    clips = manifest(make_view(native_fps=29.97))
    with pytest.raises(InputError) as of_selection:
        select_clips(clips, TWO, FrameGrid(60), ("train",))
    with pytest.raises(InputError) as of_grid:
        FrameGrid(60).timestamps(0, 4, 29.97)
    named = [
        re.search(r"highest usable (?:value is fps=|fps is )([\d.]+)", str(e.value)) for e in (of_selection, of_grid)
    ]
    assert [match and match[1] for match in named] == ["31.46", "31.46"]
    assert not select_clips(clips, TWO, FrameGrid(31.46), ("train",)).dropped


def test_fingerprint_follows_every_view_and_the_sensors():
    def fingerprint(driver="22", sensors="33"):
        views = {"road": make_view(), "driver": make_view("b.mp4", content_hash=driver)}
        clips = manifest(views=views, sensors=DataFile(path="a.npz", content_hash=sensors))
        return select_clips(clips, TWO, FrameGrid(15), ("train",)).fingerprint

    assert fingerprint() == fingerprint()
    assert len({fingerprint(), fingerprint(driver="23"), fingerprint(sensors="34")}) == 3


def test_fingerprint_follows_clips_labels_and_splits():
    base = select_clips(manifest(), TWO, FrameGrid(15), ("train",)).fingerprint
    assert select_clips(list(reversed(manifest())), TWO, FrameGrid(15), ("train",)).fingerprint == base
    assert select_clips(manifest(make_view(content_hash="11")), TWO, FrameGrid(15), ("train",)).fingerprint != base
    assert select_clips(manifest(end_s=5.0), TWO, FrameGrid(15), ("train",)).fingerprint != base


def visit(ordinal: int, clip_index: int = 0, seed: int = 0) -> Visit:
    return Visit(clip_index, position=ordinal, ordinal=ordinal, phase=0.0, seed=seed)


def test_the_visits_of_a_clip_take_different_annotations_until_all_had_their_turn():
    mixture = Mixture(mcq_orders=6, closed_questions=["when", "ego_brakes"], per_visit={"mcq": 2, "closed_qa": 1})
    clip = make_clip(metadata={"ego_brakes": True})
    three = labels("normal", "near_collision", "collision")
    labelled = mixture.annotate(clip, "collision", three, 0, training=True)
    assert Counter(a.task for a in labelled.annotations) == {"mcq": 6, "closed_qa": 2}
    draws = [mixture.for_visit(labelled, visit(i)) for i in range(60)]
    assert all(Counter(a.task for a in draw) == {"mcq": 2, "closed_qa": 1} for draw in draws)
    assert all(len({a.id for a in draw}) == 3 for draw in draws)
    for task, visits_a_round in (("mcq", 3), ("closed_qa", 2)):
        for start in range(0, 60, visits_a_round):
            dealt = [a.id for draw in draws[start : start + visits_a_round] for a in draw if a.task == task]
            assert sorted(dealt) == sorted(a.id for a in labelled.annotations if a.task == task)
    assert draws[3] == mixture.for_visit(labelled, visit(3))
    assert [mixture.for_visit(labelled, visit(i, seed=1)) for i in range(60)] != draws
    assert [mixture.for_visit(labelled, visit(i, clip_index=1)) for i in range(60)] != draws
    assert mixture.annotations_per_visit([labelled], [0, 0]) == 3


def test_what_makes_no_full_hand_waits_for_the_next_shuffle():
    mixture = Mixture(mcq_orders=5, per_visit={"mcq": 3})
    labelled = mixture.annotate(make_clip(), "collision", labels("normal", "near_collision", "collision"), 0, True)
    draws = [mixture.for_visit(labelled, visit(i)) for i in range(200)]
    assert all(len({a.id for a in draw}) == 3 for draw in draws)
    counts = Counter(a.id for draw in draws for a in draw)
    assert len(counts) == 5
    assert min(counts.values()) > 90  # 120 each on average


def test_ordinals_count_the_visits_of_a_clip_across_epochs():
    schedule = VisitSchedule(((0, 1), (0,), (0,), (2,)), batch_size=2, seed=3)
    stream = [v for step in range(15) for v in schedule.batch(step)]
    seen: Counter[int] = Counter()
    for v in stream:
        assert v.ordinal == seen[v.clip_index]
        seen[v.clip_index] += 1


def test_evaluation_asks_the_multiple_choice_question_once():
    mixture = Mixture(mcq_orders=6, per_visit={"mcq": 2})
    assert len(mixture.annotate(make_clip(), "normal", TWO, 0, training=False).annotations) == 1


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)), min_size=1, max_size=20, unique_by=lambda pair: pair[0])
)
def test_sibling_blocks_keep_every_visit_and_never_repeat_a_clip(repeats: list[tuple[int, int]]):
    visits = [clip for clip, times in repeats for _ in range(times)]
    blocks = sibling_blocks(visits, [f"scene{clip // 3}" for clip in visits])
    assert sorted(v for block in blocks for v in block) == sorted(visits)
    assert all(len(set(block)) == len(block) for block in blocks)
    assert all(len({clip // 3 for clip in block}) == 1 for block in blocks)


def test_siblings_come_together_only_if_asked():
    clips = [make_clip(id=f"{i}#0", source_video_id=f"s{i // 3}") for i in range(30)]
    labelled = [Mixture().annotate(c, "normal", TWO, 0, training=True) for c in clips]

    def neighbours(together: bool) -> float:
        batch = Mixture(siblings_together=together).schedule(labelled, 30, seed=0).batch(0)
        scenes = [v.clip_index // 3 for v in batch]
        return sum(a == b for a, b in pairwise(scenes)) / len(scenes)

    assert neighbours(True) > 0.6
    assert neighbours(False) < 0.3


def test_one_option_order_per_run_depends_on_the_seed_only():
    mixture = Mixture(option_order="per_run", mcq_orders=6)
    names = ("normal", "near_collision", "collision")
    asked = [mixture.annotate(make_clip(id=f"{i}#0"), "normal", labels(*names), 0, True).annotations for i in range(9)]
    assert {a.options for annotations in asked for a in annotations} == {asked[0][0].options}
    orders = {mixture.questions("x", labels(*names), seed, 1)[0].options for seed in range(30)}
    assert len(orders) == 6


def test_unknown_option_order_is_refused():
    with pytest.raises(InputError, match="per_clip or per_run"):
        Mixture(option_order="random")  # type: ignore[arg-type]
