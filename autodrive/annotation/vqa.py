"""Questions in free words with answers in free words, from what is known of a clip."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Annotated, NamedTuple

from annotated_types import Le

from autodrive.annotation.balance import Asked, ask_fairly
from autodrive.annotation.captions import GENERATOR
from autodrive.annotation.facts import WindowFacts, facts_of
from autodrive.annotation.phrases import EGO, Draws, capitalised
from autodrive.annotation.topics import TOPICS, Topic, fields_of
from autodrive.bounds import Count
from autodrive.labels import LabelSet
from autodrive.schema import Annotation, Clip
from autodrive.seeding import generator_for

OTHER = ("the other road user", "the other party", "the road user that it meets")


@dataclass(frozen=True)
class OpenQuestions:
    """Asks each clip about some topics, in wordings that vary.

    Each topic is asked of so many clips of a split that no answer is much more frequent than the others: nobody can
    guess it from the question.

    Attributes:
        task: The task of the questions.
        topics_per_clip: Topics drawn for each clip among those that are known of it; balancing then leaves some out.
        topics: What there is to ask.
    """

    task: str
    topics_per_clip: Annotated[Count, Le(100)] = 16
    topics: Sequence[Topic] = field(default_factory=lambda: TOPICS)

    def annotations(self, clips: Sequence[Clip], labels: LabelSet, seed: int) -> Iterator[Annotation]:
        """The questions that are asked, clip by clip."""
        known = [facts_of(clip) for clip in clips]
        draws = [Draws(seed, clip.id, self.task) for clip in clips]
        values = [
            {topic.key: value for topic in self.topics if (value := topic.value(facts)) is not None} for facts in known
        ]
        wordings = wordings_of(self.topics, seed, self.task)
        asked = fairly_drawn(values, self.topics, clips, draws, self.topics_per_clip, (seed, self.task))
        for clip, facts, draw, found in zip(clips, known, draws, asked, strict=True):
            for topic in self.topics:
                if topic.key in found:
                    wording = wordings[topic.key][found[topic.key].rank % len(wordings[topic.key])]
                    question, answer = worded(topic, found[topic.key].answer, facts, wording, draw)
                    yield Annotation.create(clip.id, self.task, question, answer, GENERATOR)


class Wording(NamedTuple):
    """A wording of a question, and names for the ego and for the other road user."""

    question: str
    ego: str
    other: str


def wordings_of(topics: Sequence[Topic], seed: int, task: str) -> dict[str, list[Wording]]:
    """All wordings of each topic's question by its key, in an order that follows from seed and task."""
    found = {}
    for topic in topics:
        every = [Wording(*parts) for parts in product(topic.questions, EGO, OTHER)]
        order = generator_for(seed, task, topic.key, "wordings").permutation(len(every))
        found[topic.key] = [every[index] for index in order]
    return found


def fairly_drawn(
    values: Sequence[Mapping[str, str]],
    topics: Sequence[Topic],
    clips: Sequence[Clip],
    draws: Sequence[Draws],
    topics_per_clip: int,
    keys: tuple[int, str],
) -> list[dict[str, Asked]]:
    """Choose topics for each clip so that no answer can be guessed from its question.

    Drawing comes first, and leaves the shares of answers as they are; balancing comes last, so that what is left is
    balanced.

    Args:
        values: Answers of each clip by the key of their topic.
        topics: The topics that these keys name.
        clips: The clips.
        draws: The draws of each clip.
        topics_per_clip: Topics drawn for each clip.
        keys: What the draws of balancing follow from: a seed and a name.

    Returns:
        How each clip is asked about the topics that are chosen for it, by their keys.
    """
    drawn = [
        {key: found[key] for key in draw.order(list(found), topics_per_clip)}
        for found, draw in zip(values, draws, strict=True)
    ]
    asked: list[dict[str, Asked]] = [{} for _ in clips]
    for topic in topics:
        fair = ask_fairly(clips, [found.get(topic.key) for found in drawn], generator_for(*keys, topic.key))
        for of_clip, found in zip(asked, fair, strict=True):
            if found is not None:
                of_clip[topic.key] = found
    return asked


def worded(topic: Topic, value: str, facts: WindowFacts, wording: Wording, draws: Draws) -> tuple[str, str]:
    """A topic's question in a wording, and its answer in one of its own, with the same names in both."""
    names = {"ego": wording.ego, "other": wording.other, "value": value}
    names |= {capitalised(name): capitalised(text) for name, text in names.items()}
    question = wording.question.format(**names)
    answer = draws.pick(topic.wordings(value)).format(**names, **fields_of(facts))
    return capitalised(question), capitalised(answer)
