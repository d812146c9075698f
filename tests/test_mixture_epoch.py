"""What an epoch teaches: exact counts, dealt over visits, drawn by source name."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import make_clip

from autodrive.annotation.supply import AnnotatedClip
from autodrive.errors import InputError
from autodrive.mixture.balancing import Balance
from autodrive.mixture.epoch import EpochPlan, Part
from autodrive.mixture.mixture import Mixture
from autodrive.schema import Annotation


def annotated(index: int, label: str | None, **counts: int) -> AnnotatedClip:
    """A clip with so many annotations of each source."""
    clip = make_clip(id=f"{index}#0", source_video_id=f"s{index}", label=label)
    by_source = {
        source: tuple(Annotation.create(clip.id, "caption", "?", f"{source} {i}", "test") for i in range(count))
        for source, count in counts.items()
    }
    return AnnotatedClip(clip, label, by_source)


def stream(plan: EpochPlan, num_epochs: int = 1) -> list[list[Counter[str]]]:
    """What each visit teaches, by answer, epoch after epoch."""
    schedule = Mixture().schedule(plan, batch_size=1)
    visits = [v for step in range(num_epochs * len(plan.visits)) for v in schedule.batch(step)]
    taught = [Counter(t.annotation.clip_id + " " + t.annotation.answer for t in v.taught) for v in visits]
    size = len(plan.visits)
    return [taught[epoch * size : (epoch + 1) * size] for epoch in range(num_epochs)]


def totals(epoch: list[Counter[str]]) -> Counter[str]:
    return sum(epoch, Counter())


FACTORS = Balance(factors={"normal": 1, "collision": 15})


def test_a_collision_visited_fifteen_times_has_its_one_caption_taught_once():
    clips = [annotated(0, "normal", mcq=1, people=1), annotated(1, "collision", mcq=1, people=1)]
    plan = Mixture({"mcq": Part(per_visit=1)}, balance=FACTORS).plan(clips, ("mcq", "people"), seed=0)
    assert plan.visits_per_class() == {"normal": 1, "collision": 15}
    assert plan.annotations_per_epoch() == {"mcq": 16, "people": 2}
    for epoch in stream(plan, 3):
        assert totals(epoch) == {"0#0 mcq 0": 1, "0#0 people 0": 1, "1#0 mcq 0": 15, "1#0 people 0": 1}


def test_the_visit_that_holds_the_caption_changes_from_epoch_to_epoch():
    plan = Mixture({"mcq": Part(per_visit=1)}, balance=FACTORS).plan(
        [annotated(0, "normal", mcq=1), annotated(1, "collision", mcq=1, people=1)], ("mcq", "people"), seed=0
    )
    places = [plan.annotations_of(1, ordinal) for ordinal in range(15 * 8)]
    held = [ordinal % 15 for ordinal, taught in enumerate(places) if len(taught) == 2]
    assert len(held) == 8
    assert len(set(held)) > 3


def test_a_limit_is_a_draw_of_which_a_smaller_one_takes_a_part():
    clips = [annotated(index, "normal", mcq=1, people=3) for index in range(40)]

    def drawn(limit: int | None, seed: int = 0) -> set[str]:
        plan = Mixture({"people": Part(limit=limit)}).plan(clips, ("mcq", "people"), seed)
        (epoch,) = stream(plan)
        assert totals(epoch) == Counter(set(totals(epoch)))
        assert sum(" mcq " in name for name in totals(epoch)) == 40  # other sources stay whole
        return {name for name in totals(epoch) if " people " in name}

    assert len(drawn(None)) == len(drawn(120)) == len(drawn(1000)) == 120
    assert len(drawn(30)) == 30
    assert drawn(10) < drawn(30) < drawn(100)
    assert drawn(30, seed=1) != drawn(30)


def test_each_so_many_th_visit_takes_some_and_clips_take_turns():
    clips = [annotated(index, "normal", mcq=1, people=2) for index in range(60)]
    parts = {"mcq": Part(per_visit=1), "people": Part(per_visit=1, every=6)}
    plan = Mixture(parts).plan(clips, ("mcq", "people"), seed=0)
    epochs = stream(plan, 12)
    for epoch in epochs:  # one visit of each clip, a sixth of them with more; never all at once
        assert sum(" mcq " in name for name in totals(epoch)) == 60
        assert 0 < sum(" people " in name for name in totals(epoch)) < 30
    over_all = sum((totals(epoch) for epoch in epochs), Counter())
    assert {name: n for name, n in over_all.items() if " people " in name} == {
        f"{index}#0 people {number}": 1 for index in range(60) for number in range(2)
    }


def test_what_is_left_out_and_what_is_missing():
    mixture = Mixture({"mcq": Part(), "people": Part(optional=True)}, leave_out=["models"])
    assert mixture.taught(["mcq", "models"]) == ["mcq"]
    mixture.check_sources(["mcq", "models"])
    assert mixture.lines(["mcq", "models"]) == [
        "mixture.parts.people: there is no such annotation source; the run does without"
    ]
    with pytest.raises(InputError, match=r"mixture.parts.mcq: no such annotation source"):
        mixture.check_sources(["people"])
    with pytest.raises(InputError, match=r"nothing would be taught"):
        mixture.check_sources(["models"])
    with pytest.raises(InputError, match=r"every=2: set per_visit, too"):
        Mixture({"mcq": Part(every=2)}).plan([annotated(0, "normal", mcq=1)], ["mcq"], 0)


def test_repeat_teaches_twice_an_epoch_in_different_visits():
    clips = [annotated(0, "normal", people=3), annotated(1, "collision", people=1)]
    plan = Mixture({"people": Part(repeat=2)}).plan(clips, ("people",), seed=0)
    assert plan.annotations_per_epoch() == {"people": 8}
    assert Counter(plan.visits) == {0: 2, 1: 2}  # balance visits each once; the second visit is for the repeat
    for epoch in stream(plan, 2):
        assert set(totals(epoch).values()) == {2}
        assert all(set(visit.values()) == {1} for visit in epoch)


@given(
    st.lists(
        st.tuples(st.sampled_from(["normal", "collision", None]), st.integers(0, 5), st.integers(0, 7)), max_size=8
    ),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_counts_are_exact_and_no_visit_holds_an_annotation_twice(members, per_visit: int, repeat: int, seed: int):
    clips = [annotated(i, label, mcq=a, people=b) for i, (label, a, b) in enumerate(members)]
    clips = [AnnotatedClip(c.clip, c.label, {n: found for n, found in c.by_source.items() if found}) for c in clips]
    mixture = Mixture({"mcq": Part(per_visit=per_visit), "people": Part(repeat=repeat)}, balance=Balance(equal=True))
    plan = mixture.plan(clips, ("mcq", "people"), seed)
    for epoch in stream(plan, 2):
        taught = totals(epoch)
        assert all(set(visit.values()) == {1} for visit in epoch)  # at least one annotation, each once
        by_source = Counter({n: sum(c for key, c in taught.items() if f" {n} " in key) for n in ("mcq", "people")})
        assert +by_source == +Counter(plan.annotations_per_epoch())
        people = {key: count for key, count in taught.items() if " people " in key}
        assert people == {f"{c.clip.id} {a.answer}": repeat for c in clips for a in c.by_source.get("people", ())}


@given(st.integers(1, 15), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3))
def test_no_visit_is_empty_where_nothing_fills_the_visits_of_balance(
    factor: int, people: int, models: int, repeat: int, seed: int
):
    clips = [annotated(0, "normal", people=people, models=models)]
    mixture = Mixture({"models": Part(repeat=repeat)}, balance=Balance(factors={"normal": factor}))
    plan = mixture.plan(clips, ("people", "models"), seed)
    assert len(plan.visits) == max(repeat, min(factor, people + models * repeat))
    for epoch in stream(plan, 2):
        assert all(visit and set(visit.values()) == {1} for visit in epoch)
        assert sum(totals(epoch).values()) == people + models * repeat


def test_another_source_changes_no_draw_of_the_others():
    def draws(**extra: int) -> list[list[str]]:
        clips = [annotated(0, "normal", zebra=6, **extra), annotated(1, "collision", zebra=6, **extra)]
        clips = [AnnotatedClip(c.clip, c.label, dict(sorted(c.by_source.items()))) for c in clips]
        parts = {name: Part(per_visit=1) for name in ("zebra", *extra)}
        schedule = Mixture(parts).schedule(Mixture(parts).plan(clips, tuple(parts), seed=4), batch_size=1)
        visits = [schedule.batch(step)[0] for step in range(40)]
        answers = [[t.annotation.answer for t in v.taught] for v in visits]
        return [[a for a in visit if a.startswith("zebra")] for visit in answers]

    alone = draws()
    assert len({visit[0] for visit in alone}) == 6
    assert draws(ape=3) == alone  # stands before it in the configuration
    assert draws(ape=3, bee=2) == alone


def test_the_visits_of_a_clip_take_different_annotations_until_all_had_their_turn():
    parts = {"mcq": Part(per_visit=2), "closed": Part(per_visit=1)}
    plan = Mixture(parts).plan([annotated(0, "normal", mcq=6, closed=2)], tuple(parts), seed=0)
    draws = [plan.annotations_of(0, ordinal) for ordinal in range(60)]
    assert all(len({t.annotation.id for t in draw}) == 3 for draw in draws)
    for name, visits_a_round in (("mcq", 3), ("closed", 2)):
        for start in range(0, 60, visits_a_round):
            dealt = [t.annotation.answer for draw in draws[start : start + visits_a_round] for t in draw]
            own = sorted(answer for answer in dealt if answer.startswith(name))
            assert own == [f"{name} {i}" for i in range(6 if name == "mcq" else 2)]
    assert draws[3] == plan.annotations_of(0, 3)
    assert [Mixture(parts).plan(plan.clips, tuple(parts), seed=1).annotations_of(0, i) for i in range(60)] != draws


def test_clips_and_sources_are_shuffled_each_on_its_own():
    parts = {"mcq": Part(per_visit=2), "closed": Part(per_visit=2)}
    plan = Mixture(parts).plan([annotated(i, "normal", mcq=6, closed=6) for i in (0, 1)], tuple(parts), seed=0)

    def order(clip: int, source: str) -> list[str]:
        taught = (t.annotation.answer for ordinal in range(9) for t in plan.annotations_of(clip, ordinal))
        return [answer.removeprefix(f"{source} ") for answer in taught if answer.startswith(source)]

    orders = [order(clip, source) for clip in (0, 1) for source in parts]
    assert all(one != other for i, one in enumerate(orders) for other in orders[:i])


def test_what_makes_no_full_hand_waits_for_the_next_shuffle():
    plan = Mixture({"mcq": Part(per_visit=3)}).plan([annotated(0, "normal", mcq=5)], ("mcq",), seed=0)
    counts = Counter(t.annotation.id for ordinal in range(200) for t in plan.annotations_of(0, ordinal))
    assert sum(counts.values()) == 600
    assert len(counts) == 5
    assert min(counts.values()) > 90  # 120 each on average


def test_weights_are_those_of_the_part():
    parts = {"mcq": Part(per_visit=1), "closed": Part(per_visit=1, weight=0.2)}
    plan = Mixture(parts).plan([annotated(0, "normal", mcq=1, closed=1, people=1)], (*parts, "people"), seed=0)
    assert [(t.annotation.answer, t.weight) for t in plan.annotations_of(0, 0)] == [
        ("mcq 0", 1.0),
        ("closed 0", 0.2),
        ("people 0", 1.0),
    ]


def test_thinned_clips_are_not_visited_and_clips_without_a_class_are():
    clips = [annotated(i, "normal", people=1) for i in range(4)] + [annotated(4, "collision", people=1)]
    clips.append(annotated(5, None, people=1))
    balance = Balance(natural_ratio={"normal": 2, "collision": 1})
    plan = Mixture(balance=balance).plan(clips, ("people",), seed=0)
    assert plan.visits_per_class() == {"normal": 2, "collision": 1, "no_class": 1}
    assert plan.annotations_per_epoch() == {"people": 4}


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"closed": Part(per_visit=1)}, r"mixture\.parts\.closed: no such annotation source \(there is mcq\)"),
        ({"mcq": Part(per_visit=1, repeat=2)}, r"mixture\.parts\.mcq: set per_visit or repeat"),
    ],
)
def test_wrong_parts_are_named(parts: dict, said: str):
    with pytest.raises(InputError, match=said):
        Mixture(parts).plan([annotated(0, "normal", mcq=1)], ("mcq",), seed=0)
