"""How many of what came to what: every line of the funnel is counted again from the files it is about."""

from collections import Counter
from collections.abc import Mapping, Sequence

from autodrive.annotation.stages import Dropped, Outcome
from autodrive.schema import Annotation, Record

NO_CLASS = "no_class"


class Work(Record):
    """What a stage has done about a clip: a line of work.jsonl.

    Attributes:
        stage: Name of the stage.
        clip_id: The clip.
        key: Identifies what the outcome follows from: the stage's version, and all that it was given.
        outcome: What came of it, before filters.
    """

    stage: str
    clip_id: str
    key: str
    outcome: Outcome


class ClassShare(Record):
    """Candidates about clips of one class, and how many of them are kept."""

    candidates: int = 0
    kept: int = 0


class StageCount(Record):
    """The funnel of one stage.

    requests = replies + failed; replies = parsed + unparsable; candidates = kept + dropped.

    Attributes:
        stage: Name of the stage.
        clips: Clips that it worked on.
        requests: Requests it made; a rule makes one per clip.
        failed: Requests without a reply.
        replies: Replies delivered.
        unparsable: Replies from which nothing could be read.
        parsed: Replies from which candidates were read, perhaps several from one.
        candidates: Annotations that could have been kept.
        dropped: Those that were not.
        kept: Those that were.
        reasons: Rows of dropped.jsonl by unit and reason, such as `candidate duplicate`.
        by_class: Candidates and kept ones by the class of their clip.
    """

    stage: str
    clips: int
    requests: int
    failed: int
    replies: int
    unparsable: int
    parsed: int
    candidates: int
    dropped: int
    kept: int
    reasons: dict[str, int]
    by_class: dict[str, ClassShare]


def count_stages(
    stages: Sequence[str],
    work: Sequence[Work],
    annotations: Sequence[Annotation],
    dropped: Sequence[Dropped],
    class_of_clip: Mapping[str, str | None],
) -> list[StageCount]:
    """Count the lines of three files against each other.

    Args:
        stages: Names of the stages in their order.
        work: The lines of work.jsonl.
        annotations: The lines of annotations.jsonl.
        dropped: The lines of dropped.jsonl.
        class_of_clip: Classes by clip id.

    Raises:
        ValueError: The files do not add up: some of them were written by another run.
    """
    kept_ids = {annotation.id: annotation.clip_id for annotation in annotations}
    counts = []
    for stage in stages:
        outcomes = [line for line in work if line.stage == stage]
        rows = [row for row in dropped if row.stage == stage]
        by_unit = Counter(row.unit for row in rows)
        lost = Counter(row.item for row in rows if row.unit == "candidate")
        candidates = Counter(a.id for line in outcomes for a in line.outcome.candidates)
        candidates += Counter(d.item for line in outcomes for d in line.outcome.dropped if d.unit == "candidate")
        # A candidate that an earlier stage gave, too, is kept there and dropped here.
        kept = {id_: kept_ids.pop(id_) for id_ in candidates if candidates[id_] > lost[id_] and id_ in kept_ids}
        shares = {name: [0, 0] for name in dict.fromkeys(class_of_clip.get(line.clip_id) for line in outcomes)}
        for clip_id in kept.values():
            shares[class_of_clip.get(clip_id)][0] += 1
            shares[class_of_clip.get(clip_id)][1] += 1
        for row in rows:
            shares[row.clip_class][0] += row.unit == "candidate"
        requests, replies = (sum(getattr(line.outcome, name) for line in outcomes) for name in ("requests", "replies"))
        counts.append(
            StageCount(
                stage=stage,
                clips=len(outcomes),
                requests=requests,
                failed=by_unit["request"],
                replies=replies,
                unparsable=by_unit["reply"],
                parsed=replies - by_unit["reply"],
                candidates=candidates.total(),
                dropped=by_unit["candidate"],
                kept=len(kept),
                reasons=dict(sorted(Counter(f"{row.unit} {row.reason}" for row in rows).items())),
                by_class={name or NO_CLASS: ClassShare(candidates=c, kept=k) for name, (c, k) in shares.items()},
            )
        )
    if kept_ids:
        raise ValueError(f"annotations.jsonl: {len(kept_ids)} rows are of no stage, such as {next(iter(kept_ids))}")
    for count in counts:
        if count.requests != count.replies + count.failed or count.candidates != count.kept + count.dropped:
            raise ValueError(f"stage {count.stage}: its files do not add up: {count}")
    return counts
