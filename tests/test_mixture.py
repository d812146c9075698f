import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import make_clip, make_view
from run_samples import task_book

from autodrive.annotation.rules import ClassQuestion
from autodrive.annotation.supply import AnnotatedClip, supply
from autodrive.errors import InputError
from autodrive.label_sets import shipped_label_sets
from autodrive.labels import LabelSet
from autodrive.mixture.balancing import Balance
from autodrive.mixture.epoch import Part
from autodrive.mixture.mixture import Mixture, VisitSchedule, sibling_blocks
from autodrive.mixture.selection import Wanted, select_clips
from autodrive.schema import Annotation, Clip, DataFile, Split
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


def test_as_many_a_class_thins_some_and_repeats_others():
    found = plan(Balance(per_class=100), PAPER)
    assert found.visits_per_class == dict.fromkeys(("normal", "near_collision", "collision"), 100)
    visits = Counter(found.visits)
    assert {n for v, n in visits.items() if PAPER[v] == "normal"} == {1}
    assert {n for v, n in visits.items() if PAPER[v] == "near_collision"} == {1, 2}
    assert {n for v, n in visits.items() if PAPER[v] == "collision"} == {10}


def test_once_more_adds_a_visit_of_every_clip():
    ratio = {"normal": 43, "near_collision": 14, "collision": 11}
    found = plan(Balance(target_counts=ratio, once_more=True), PAPER)
    assert found.visits_per_class == {"normal": 860, "near_collision": 230, "collision": 120}
    assert min(Counter(found.visits).values()) == 2


def test_modes_exclude_each_other():
    with pytest.raises(InputError, match="not several"):
        plan(Balance(equal=True, factors={"normal": 1}), PAPER)


@pytest.mark.parametrize("key", ["natural_ratio", "factors", "target_counts"])
def test_what_is_given_by_class_must_name_the_classes_there_are(key: str):
    given: Any = {key: {"normal": 43, "event": 10}}
    balance = Balance(**given)
    with pytest.raises(InputError, match=rf"mixture\.balance\.{key} names .*; name exactly these classes"):
        plan(balance, PAPER)


def test_a_class_that_a_ratio_thins_to_nothing_keeps_one_clip():
    thinned = plan(
        Balance(natural_ratio={"normal": 1, "near_collision": 1000}), ["normal"] * 9 + ["near_collision"] * 9
    )
    assert thinned.visits_per_class == {"normal": 1, "near_collision": 9}


def test_subsample_is_seeded():
    balance = Balance(natural_ratio={"normal": 4, "near_collision": 2, "collision": 1})
    assert plan(balance, PAPER, 1) == plan(balance, PAPER, 1)
    assert plan(balance, PAPER, 1).visits != plan(balance, PAPER, 2).visits


def annotated(label: str | None = "normal", **changes) -> AnnotatedClip:
    clip = make_clip(label=label, **changes)
    said = Annotation.create(clip.id, "caption", "?", "Two cars touch.", "test")
    return AnnotatedClip(clip, label, {"people": (said,)})


def schedule_of(num_clips: int, batch_size: int, seed: int) -> VisitSchedule:
    clips = [annotated(id=f"{i}#0", source_video_id=f"s{i}") for i in range(num_clips)]
    return Mixture().schedule(Mixture().plan(clips, ("people",), seed), batch_size)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 5), st.integers(1, 30))
def test_every_epoch_visits_each_place_of_the_plan_once(num_visits: int, batch_size: int, seed: int, steps: int):
    schedule = schedule_of(num_visits, batch_size, seed)
    stream = [visit for step in range(steps) for visit in schedule.batch(step)]
    assert [v.position for v in stream] == list(range(steps * batch_size))
    for start in range(0, len(stream) - num_visits + 1, num_visits):
        assert len({v.clip.id for v in stream[start : start + num_visits]}) == num_visits
    assert all(0 <= v.phase < 1 for v in stream)


def test_a_batch_follows_from_seed_and_step_alone():
    unbroken = schedule_of(50, 16, seed=4)
    for step in range(20):
        unbroken.batch(step)
    assert schedule_of(50, 16, seed=4).batch(20) == unbroken.batch(20)
    assert schedule_of(50, 16, seed=5).batch(20) != unbroken.batch(20)


def test_every_visit_of_a_clip_has_a_phase_of_its_own():
    stream = [visit for step in range(40) for visit in schedule_of(4, 4, seed=0).batch(step)]
    phases = {clip: [v.phase for v in stream if v.clip.id == clip] for clip in {v.clip.id for v in stream}}
    assert len({phase for seen in phases.values() for phase in seen}) == len(stream) == 160
    for seen in phases.values():  # spread over the whole frame interval
        assert all(np.histogram(seen, bins=4, range=(0, 1))[0] > 0)


def labels(*names: str) -> LabelSet:
    entries = [{"name": n, "option": n, "sources": [n], "anomalous": n != "normal", "short": n} for n in names]
    return LabelSet("test", entries)


TWO = labels("normal", "collision")
MEMBERS = [("train", "normal"), ("train", "collision"), ("val", "normal"), ("test", "collision")]


def manifest(view=None, **changes):
    return [make_clip(view, id=f"{i}#0", split=s, label=c, **changes) for i, (s, c) in enumerate(MEMBERS)]


def select(clips: list[Clip], labels: LabelSet, fps: float, needed: tuple[Split, ...], **sources):
    """Select with the class question, and other sources if given."""
    built = {"classes": ClassQuestion("mcq"), **sources}
    found = supply(built, [c for c in clips if c.split], {c.id for c in clips}, task_book(), labels, seed=0)
    wanted = Wanted(needed, "train" in needed, shipped_label_sets())
    return select_clips(clips, {c.clip.id: c for c in found.clips}, labels, FrameGrid(fps), wanted)


def test_selection_sorts_by_split_and_class():
    selection = select(manifest(), TWO, 15, ("train", "val", "test"))
    assert selection.counts() == {
        "train": {"normal": 1, "collision": 1},
        "val": {"normal": 1},
        "test": {"collision": 1},
    }
    assert selection.dropped == []


def test_too_high_frame_rate_is_dropped_and_counted():
    slow = make_clip(make_view(native_fps=10), id="slow#0", split="train", label="normal")
    selection = select([*manifest(), slow], TWO, 15, ("train",))
    assert [(d.item, d.reason) for d in selection.dropped] == [("slow#0", "frame_rate_too_high")]


def test_frame_rate_tolerance_is_five_percent():
    assert not select(manifest(make_view(native_fps=28.9)), TWO, 30, ("train",)).dropped
    with pytest.raises(InputError, match=r"highest usable value is fps=29\.4"):
        select(manifest(make_view(native_fps=28.0)), TWO, 30, ("train",))


def test_no_usable_frame_rate_names_the_highest():
    with pytest.raises(InputError, match=r"fps=10\.5"):
        select(manifest(make_view(native_fps=10)), TWO, 30, ("train",))


def test_the_rate_that_keeps_all_is_named_beside_the_highest():
    clips = [c.model_copy(update={"views": {"road": make_view(native_fps=10 + i)}}) for i, c in enumerate(manifest())]
    with pytest.raises(InputError, match=r"highest usable value is fps=13\.65, and fps=10\.5 keeps all"):
        select(clips, TWO, 30, ("train",))


def test_the_highest_rate_is_named_too_where_other_clips_are_set_aside_for_other_reasons():
    clips = [*manifest(make_view(native_fps=10)), make_clip(make_view(native_fps=50), id="x#0", label=None)]
    with pytest.raises(InputError, match=r"highest usable value is fps=10\.5"):
        select(clips, TWO, 30, ("train",))


def test_class_without_training_clips_is_named():
    with pytest.raises(InputError, match="near_collision"):
        select(manifest(), labels("normal", "near_collision", "collision"), 15, ("train",))


def test_empty_split_is_named_with_what_was_set_aside():
    clips = [c for c in manifest() if c.split != "val"] + [make_clip(id="x#0", split="val", label=None)]
    with pytest.raises(InputError) as refused:
        select(clips, TWO, 15, ("train", "val"))
    held, lost = "train holds 2 clips, test holds 1 clip", "1 of 1 val clip set aside: 1 no_label ("
    assert f"clips: the val split is empty ({held}); {lost}" in str(refused.value)


def test_an_evaluation_needs_one_clip_and_is_told_which_splits_have_some():
    clips = [make_clip(make_view(native_fps=25), id="0#0", split="train", label="normal")]
    clips += [make_clip(make_view(native_fps=rate), id=f"{rate}#0", split="test") for rate in (10, 12)]

    def evaluate(split: Split):
        found = supply({"classes": ClassQuestion("mcq")}, clips, {c.id for c in clips}, task_book(), TWO, seed=0)
        by_id = {c.clip.id: c for c in found.clips}
        return select_clips(clips, by_id, TWO, FrameGrid(15), Wanted((split,), trains=False))

    assert evaluate("train").counts()["train"] == {"normal": 1}
    assert evaluate("train").lines == []
    with pytest.raises(InputError) as refused:
        evaluate("test")
    lost = "2 of 2 test clips set aside: 2 frame_rate_too_high (fps=10.5 would use all)"
    assert f"the test split is empty (split=train holds 1 clip); {lost}; add test clips" in str(refused.value)


def test_what_is_set_aside_is_told_with_what_would_use_it():
    clips = [*manifest(), *(make_clip(id=f"x{i}#0", split="test", label=label) for i, label in enumerate(("", "Oops")))]
    clips += [make_clip(id=f"e{i}#0", split="test", label="near_collision") for i in range(2)]
    clips += [make_clip(make_view(native_fps=rate), id=f"{rate}#0", split="train") for rate in (10, 12)]
    clips += [make_clip(id="n#0", split=None), make_clip(id="u#0", split="val", label=None)]
    labels = "'near_collision' 2, '' 1, 'Oops' 1; labels=event2 would use 2"
    assert select(clips, TWO, 15, ("train", "val", "test")).lines == [
        "2 of 4 train clips set aside: 2 frame_rate_too_high (fps=10.5 would use all)",
        "1 of 2 val clips set aside: 1 no_label (a label, or annotations of them, would use them)",
        f"4 of 5 test clips set aside: 4 label_not_in_label_set ({labels})",
        "1 of 1 clip without a split set aside: 1 no_split (a split in the manifest would use them)",
    ]
    event = [*manifest(), make_clip(id="e#0", split="test", label="event")]
    (line,) = select(event, TWO, 15, ("test",)).lines
    assert line.endswith("1 label_not_in_label_set ('event' 1; labels=event2 would use all)")


def test_both_messages_name_the_same_highest_rate():
    clips = manifest(make_view(native_fps=29.97))
    with pytest.raises(InputError) as of_selection:
        select(clips, TWO, 60, ("train",))
    with pytest.raises(InputError) as of_grid:
        FrameGrid(60).timestamps(0, 4, 29.97)
    named = [re.findall(r"highest usable value is fps=([\d.]+)", str(e.value)) for e in (of_selection, of_grid)]
    assert named == [["31.46"], ["31.46"]]
    assert not select(clips, TWO, 31.46, ("train",)).dropped


def test_fingerprint_follows_every_view_and_the_sensors():
    def fingerprint(driver="22", sensors="33", offset_s=0.0, name="driver"):
        views = {"road": make_view(), name: make_view("b.mp4", content_hash=driver, offset_s=offset_s)}
        clips = manifest(views=views, sensors=DataFile(path="a.npz", content_hash=sensors))
        return select(clips, TWO, 15, ("train",)).fingerprint

    assert fingerprint() == fingerprint()
    changed = [fingerprint(driver="23"), fingerprint(sensors="34"), fingerprint(offset_s=2.0), fingerprint(name="rear")]
    assert len({fingerprint(), *changed}) == 5


class People:
    """Describes the clips it knows."""

    def __init__(self, *clip_ids: str, answer: str = "Two cars touch.", id_: str | None = None) -> None:
        self.clip_ids, self.answer, self.id = clip_ids, answer, id_

    def annotations(self, clips: Sequence[Clip], labels: LabelSet, seed: int) -> list[Annotation]:
        said = [Annotation.create(id_, "caption", "What happens?", self.answer, "people") for id_ in self.clip_ids]
        return said if self.id is None else [a.model_copy(update={"id": self.id}) for a in said]


def test_clips_without_a_class_can_be_all_that_is_taught():
    clips = [make_clip(id=f"{split}#0", split=split, label=None) for split in ("train", "val", "test")]
    people = People(*(clip.id for clip in clips))
    selection = select(clips, TWO, 15, ("train", "val", "test"), people=people)
    assert selection.counts() == {split: {"no_class": 1} for split in ("train", "val", "test")}


def test_a_clip_without_a_class_enters_where_a_source_has_annotations_for_it():
    clips = [*manifest(), *(make_clip(id=f"bddx{i}#0", split="train", label=None) for i in range(2))]
    selection = select(clips, TWO, 15, ("train",), people=People("bddx0#0"))
    assert selection.counts()["train"] == {"normal": 1, "collision": 1, "no_class": 1}
    assert [(d.item, d.reason) for d in selection.dropped] == [("bddx1#0", "no_label")]
    plan = Mixture({"classes": Part(per_visit=1)}, balance=Balance(equal=True)).plan(
        selection.clips["train"], ("classes", "people"), seed=0
    )
    assert plan.visits_per_class() == {"normal": 1, "collision": 1, "no_class": 1}
    assert plan.annotations_per_epoch() == {"classes": 2, "people": 1}


def test_a_label_outside_the_set_stays_out_whoever_describes_the_clip():
    clips = [*manifest(), make_clip(id="w#0", split="train", label="witness")]
    dropped = select(clips, TWO, 15, ("train",), people=People("w#0")).dropped
    assert [(d.item, d.reason) for d in dropped] == [("w#0", "label_not_in_label_set")]


def test_fingerprint_follows_clips_labels_splits_and_annotations():
    base = select(manifest(), TWO, 15, ("train",)).fingerprint
    assert select(list(reversed(manifest())), TWO, 15, ("train",)).fingerprint == base
    assert select(manifest(make_view(content_hash="11")), TWO, 15, ("train",)).fingerprint != base
    assert select(manifest(end_s=5.0), TWO, 15, ("train",)).fingerprint != base
    described = select(manifest(), TWO, 15, ("train",), people=People("0#0")).fingerprint
    assert described != base
    reworded = select(manifest(), TWO, 15, ("train",), people=People("0#0", answer="None do.", id_="c1")).fingerprint
    assert select(manifest(), TWO, 15, ("train",), people=People("0#0", id_="c1")).fingerprint != reworded
    assert select(manifest(), TWO, 15, ("train",), people=People("0#0", answer="None do.")).fingerprint != described


def test_ordinals_count_the_visits_of_a_clip_across_epochs():
    clips = [annotated("normal", id="0#0"), annotated("collision", id="1#0")]
    mixture = Mixture(balance=Balance(factors={"normal": 1, "collision": 3}), parts={"people": Part(per_visit=1)})
    schedule = mixture.schedule(mixture.plan(clips, ("people",), 3), batch_size=2)
    ordinals: dict[int, list[int]] = {0: [], 1: []}
    for epoch in range(8):
        for clip_index, ordinal in schedule._epoch(epoch):
            ordinals[clip_index].append(ordinal)
    assert ordinals == {0: list(range(8)), 1: list(range(24))}


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)), min_size=1, max_size=20, unique_by=lambda pair: pair[0])
)
def test_sibling_blocks_keep_every_visit_and_never_repeat_a_clip(repeats: list[tuple[int, int]]):
    visits = [clip for clip, times in repeats for _ in range(times)]
    blocks = sibling_blocks(visits, [make_clip(id=f"{i}#0", source_video_id=f"scene{i // 3}") for i in range(10)])
    assert sorted(v for block in blocks for v in block) == sorted(visits)
    assert all(len(set(block)) == len(block) for block in blocks)
    assert all(len({clip // 3 for clip in block}) == 1 for block in blocks)


def test_siblings_come_together_only_if_asked():
    clips = [annotated(id=f"{i}#0", source_video_id=f"s{i // 3}") for i in range(30)]

    def neighbours(together: bool) -> float:
        mixture = Mixture(siblings_together=together)
        batch = mixture.schedule(mixture.plan(clips, ("people",), seed=0), 30).batch(0)
        scenes = [v.clip.source_video_id for v in batch]
        return sum(a == b for a, b in pairwise(scenes)) / len(scenes)

    assert neighbours(True) > 0.6
    assert neighbours(False) < 0.3


def test_windows_of_one_recording_are_no_siblings():
    windows = [make_clip(id=f"a#{i}", source_video_id="a", start_s=i, end_s=i + 4) for i in range(7)]
    assert sibling_blocks(range(7), windows) == tuple((i,) for i in range(7))
