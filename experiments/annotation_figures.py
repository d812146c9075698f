"""How much rules say, how varied it is, whether it can be guessed from the question, and whether traces fit their clip.

    python experiments/annotation_figures.py clips.jsonl annotated/annotations.jsonl

`annotations.jsonl` is what `python -m autodrive.annotate clips=clips.jsonl out=annotated` wrote. Guessing, for each
type of question: a logistic regression on the words and pairs of words of the question and its options, fitted on the
training split and scored on the others. Chance is one in as many answers as the type has. Of a multiple-choice question
both the class and the letter are guessed.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from autodrive.annotation.claims import claims_of, trace_contradicts
from autodrive.annotation.facts import facts_of
from autodrive.annotation.phrases import capitalised
from autodrive.annotation.topics import TOPICS, Topic
from autodrive.annotation.vqa import wordings_of
from autodrive.config import register
from autodrive.datasets.manifest import load_clips
from autodrive.entry_point import CONFIG_FOLDER
from autodrive.schema import Annotation, Clip, read_jsonl

LEAST_TO_SCORE = 30
OTHER_CLIPS = 3


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("annotations", type=Path)
    given = parser.parse_args()
    clips = {clip.id: clip for clip in load_clips(given.clips)}
    annotations = list(read_jsonl(given.annotations, Annotation))
    print_amounts(clips, annotations)
    print_read_back(annotations)
    print_traces(clips, annotations)
    print_guesses(clips, annotations)


def print_amounts(clips: dict[str, Clip], annotations: Sequence[Annotation]) -> None:
    """How many annotations a clip has, and how many wordings there are."""
    per_clip = Counter(annotation.clip_id for annotation in annotations)
    least = min(per_clip[clip] for clip in clips)
    mean = len(annotations) / len(clips)
    print(f"{len(annotations)} annotations of {len(clips)} clips: {mean:.1f} each, at least {least}")
    for task in dict.fromkeys(annotation.task for annotation in annotations):
        rows = [a for a in annotations if a.task == task]
        questions, answers = ({getattr(a, name) for a in rows} for name in ("question", "answer"))
        print(f"  {task}: {len(rows)}, {len(questions)} wordings of questions, {len(answers)} different answers")


def print_read_back(annotations: Sequence[Annotation]) -> None:
    """How many targets are read back as their answers."""
    register()
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        config = compose("annotate")
    book, labels = instantiate(config.prompts), instantiate(config.labels)
    read = sum(book[a.task].why_not_teachable(a, labels) is None for a in annotations)
    print(f"targets that are read back as the answer: {read} of {len(annotations)}")


def print_traces(clips: dict[str, Clip], annotations: Sequence[Annotation]) -> None:
    """How many facts with times traces name, and how often a trace would pass as one of another clip."""
    facts = {id_: facts_of(clip) for id_, clip in clips.items()}
    claims = {a: claims_of(a.think) for a in annotations if a.think is not None}
    timed = Counter(sum(claim.start_s is not None for claim in found) for found in claims.values())
    fitting = sum(trace_contradicts(found, facts[a.clip_id]) is None for a, found in claims.items())
    print(
        f"{len(claims)} traces; facts with times in one: {dict(sorted(timed.items()))}; true of their clip: {fitting}"
    )
    rng = np.random.default_rng(0)
    for name in ("any", "the same"):
        passed = tried = 0
        for annotation, found in claims.items():
            own = clips[annotation.clip_id]
            others = [c for c in clips.values() if c.source_video_id != own.source_video_id]
            others = [c for c in others if name == "any" or c.label == own.label]
            for index in rng.integers(len(others), size=OTHER_CLIPS):
                tried += 1
                passed += trace_contradicts(found, facts[others[index].id]) is None
        print(f"  held against {OTHER_CLIPS} clips of other videos, of {name} class: {passed} of {tried} pass")


def print_guesses(clips: dict[str, Clip], annotations: Sequence[Annotation]) -> None:
    """What a reader of the question alone gets right, by type of question, the easiest first."""
    of_type: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for annotation in annotations:
        for kind, answer in typed_answers(clips, annotation):
            text = f"{annotation.question} {' then '.join(annotation.options)}"
            of_type[kind].append((str(clips[annotation.clip_id].split), text, answer))
    rows = []
    for kind, examples in of_type.items():
        train = [(text, answer) for split, text, answer in examples if split == "train"]
        held_out = [(text, answer) for split, text, answer in examples if split != "train"]
        answers = {answer for _, _, answer in examples}
        if len(held_out) < LEAST_TO_SCORE or len({answer for _, answer in train}) < 2:
            print(f"  {kind}: {len(held_out)} questions outside the training split, too few to score")
            continue
        model = make_pipeline(CountVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000))
        model.fit(*zip(*train, strict=True))
        texts, truth = zip(*held_out, strict=True)
        score, chance = float(np.mean(model.predict(texts) == np.array(truth))), 1 / len(answers)
        rows.append(
            (score - chance, f"  {kind}: {score:.3f}, chance {chance:.3f} ({len(answers)} answers), N {len(truth)}")
        )
    print("a classifier that reads the question alone:")
    for _, line in sorted(rows, reverse=True):
        print(line)


def typed_answers(clips: dict[str, Clip], annotation: Annotation) -> Iterator[tuple[str, str]]:
    """The types that a question is of, with what is to be guessed for each; captions are no questions."""
    if annotation.options:
        yield f"{annotation.task}: {annotation.question}", annotation.answer
        if annotation.answer == clips[annotation.clip_id].label:
            yield f"{annotation.task}: its letter", str(annotation.options.index(annotation.answer))
    elif topic := ASKED_BY.get(annotation.question):
        yield f"{annotation.task}: {topic.key}", str(topic.value(facts_of(clips[annotation.clip_id])))


def asked_by() -> dict[str, Topic]:
    """The topic of every wording that there is."""
    names = wordings_of(TOPICS, 0, "")
    return {
        capitalised(
            w.question.format(ego=w.ego, other=w.other, Ego=capitalised(w.ego), Other=capitalised(w.other))
        ): topic
        for topic in TOPICS
        for w in names[topic.key]
    }


ASKED_BY = asked_by()

if __name__ == "__main__":
    main()
