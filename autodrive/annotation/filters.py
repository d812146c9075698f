"""Which candidates are kept: pure functions, asked in order; the first that objects names its reason.

Every stage's candidates go through all of them, whoever wrote them. `docs/supervision.md` shows how to add one.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from autodrive.annotation.claims import claims_of, contradicted, trace_contradicts
from autodrive.annotation.phrases import LIGHT, WEATHER, touches
from autodrive.annotation.rules import CLOSED_QUESTIONS
from autodrive.annotation.stages import Item, Setting
from autodrive.labels import LabelSet
from autodrive.schema import Annotation

# English of released tokenizers has a little more than this many characters a token; so long a target fits for sure.
CHARACTERS_PER_TOKEN = 4
TIME_TOLERANCE_S = 0.1

_TAG = re.compile(r"</?(?:think|answer)>")
_SENTENCE = re.compile(r"(?<=[.!?;])\s+")
_TIME = re.compile(r"(\d+(?:\.\d+)?) ?s(?:ec(?:onds?)?)?\b")
_SAYING_NOTHING = ("yes", "no", "one", "none", "")
_UNREAL = re.compile(
    r"\b(?:no|not|never|nobody|none|nothing|neither|nor|without|nearly|almost|narrowly|avoid\w*|prevent\w*|could|would|"
    r"might|may|if|risk\w*|near|about to|threat\w*)\b|n't"
)
_CONTACT = re.compile(r"\b(?:collides?|collided|crash(?:es|ed)|hits|strikes|struck|runs into|ran into)\b")
_WEATHER = {"rain": re.compile(r"\brain(?:s|ing|y)?\b"), "fog": re.compile(r"\bfog(?:gy)?\b")}
_LIGHT = {
    "night": re.compile(r"\b(?:at night|night-?time|it is night)\b"),
    "dusk": re.compile(r"\bdusk\b"),
    "day": re.compile(r"\b(?:daylight|day-?time|by day)\b"),
}


@dataclass(frozen=True)
class Candidate:
    """What a filter looks at.

    Attributes:
        annotation: The annotation that might be kept.
        item: The clip it is about, and what is true of it.
        kept: What is kept about this clip already.
        setting: Classes and tasks.
    """

    annotation: Annotation
    item: Item
    kept: Sequence[Annotation]
    setting: Setting


Filter = Callable[[Candidate], str | None]
"""Gives the reason why a candidate is not kept; None if this filter has nothing against it."""


def why_dropped(candidate: Candidate) -> str | None:
    """The first reason why a candidate is not kept; None if it is."""
    return next((reason for filter_ in FILTERS if (reason := filter_(candidate)) is not None), None)


def misplaced(candidate: Candidate) -> str | None:
    """It is about another clip than was worked on, or of a task that does not exist."""
    if candidate.annotation.clip_id != candidate.item.clip.id:
        return "about_another_clip"
    return None if candidate.annotation.task in candidate.setting.book.tasks else "unknown_task"


def empty(candidate: Candidate) -> str | None:
    """Question, answer or trace has no words."""
    annotation = candidate.annotation
    for name, text in (("question", annotation.question), ("answer", annotation.answer), ("trace", annotation.think)):
        if text is not None and not text.strip():
            return f"empty_{name}"
    return None


def tagged(candidate: Candidate) -> str | None:
    """A trace, an answer or a question holds the tags that mark traces and answers in replies."""
    annotation = candidate.annotation
    for name, text in (("trace", annotation.think), ("answer", annotation.answer), ("question", annotation.question)):
        if text is not None and _TAG.search(text):
            return f"tags_in_{name}"
    return None


def unreadable(candidate: Candidate) -> str | None:
    """The task cannot be taught it: what a student would be taught to reply is not read back as the answer."""
    task = candidate.setting.book[candidate.annotation.task]
    return task.why_not_teachable(candidate.annotation, candidate.setting.labels)


def too_long(candidate: Candidate) -> str | None:
    """A student that is taught it could never say it within the task's limit."""
    annotation, setting = candidate.annotation, candidate.setting
    task = setting.book[annotation.task]
    limit = task.max_new_tokens[annotation.mode] * CHARACTERS_PER_TOKEN
    return "too_long" if len(task.target(annotation, setting.labels)) > limit else None


def against_truth(candidate: Candidate) -> str | None:
    """It contradicts what is true of the clip: in its choice, in its trace, or in its words."""
    annotation, item, labels = candidate.annotation, candidate.item, candidate.setting.labels
    if annotation.options and set(annotation.options) <= set(labels.shown.names):
        if item.label is None:
            return "truth_not_known"
        if annotation.answer != item.label:
            return "contradicts_truth: class"
    for closed in CLOSED_QUESTIONS.values():
        if (closed.question, closed.options) == (annotation.question, annotation.options):
            known = closed.answer(item)
            if known not in closed.options:
                return "truth_not_known"
            if known != annotation.answer:
                return "contradicts_truth: closed answer"
    if annotation.think is not None and (claim := trace_contradicts(claims_of(annotation.think), item.facts)):
        return f"contradicts_truth: {claim.kind} in the trace"
    said = None if annotation.options else _false_in_words(annotation.answer, item)
    said = said or (annotation.think and _false_in_words(annotation.think, item))
    return f"contradicts_truth: {said}" if said else None


def _false_in_words(text: str, item: Item) -> str | None:
    """What free words say that is known to be false; what is not known may be said."""
    facts = item.facts
    if claim := next((claim for claim in claims_of(text) if contradicted(claim, facts)), None):
        return str(claim.kind)
    for sentence in _SENTENCE.split(text.lower()):
        if _UNREAL.search(sentence):
            continue
        if touches(facts) is False and facts.ego_involved is not False and _CONTACT.search(sentence):
            return "contact"
        for name, known, words, patterns in (
            ("weather", facts.weather, WEATHER, _WEATHER),
            ("light", facts.light, LIGHT, _LIGHT),
        ):
            if known in words and any(value != known and p.search(sentence) for value, p in patterns.items()):
                return name
    return None


def leaking(candidate: Candidate) -> str | None:
    """The question states the answer, or the time of the event or hazard.

    A question may name a collision that the clip holds: that is a leak only where the class is asked for. One that
    offers alternatives may name the answer among them.
    """
    annotation, facts = candidate.annotation, candidate.item.facts
    question = _words(annotation.question)
    if annotation.options:
        named = [_names(question, option, candidate.setting.labels) for option in annotation.options]
        if named[annotation.answers.index(annotation.answer)] and not all(named):
            return "question_states_answer"
    elif " or " not in question:
        answer = _words(annotation.answer)
        if answer.strip() not in _SAYING_NOTHING and answer in question:
            return "question_states_answer"
    times = [facts.event_time_s, facts.hazard and facts.hazard.time_s]
    said = [float(match[1]) for match in _TIME.finditer(annotation.question.lower())]
    if any(
        abs(said_s - time_s) <= TIME_TOLERANCE_S + 1e-6 for said_s in said for time_s in times if time_s is not None
    ):
        return "question_states_event_time"
    return None


def _names(question: str, option: str, labels: LabelSet) -> bool:
    """Whether a question names one of its options, by its value or, of a class, by the words shown for it."""
    names = [option.replace("_", " ")]
    if option in labels.shown.names:
        shown = labels.shown[option]
        names += [shown.short, shown.option, shown.option.partition(":")[0]]
    return any(_words(name) in question for name in names)


def repeated(candidate: Candidate) -> str | None:
    """The same is kept already, but for case, spaces and full stops, whoever wrote it."""
    this = _taught(candidate.annotation)
    return "duplicate" if any(_taught(other) == this for other in candidate.kept) else None


def _taught(annotation: Annotation) -> tuple[object, ...]:
    texts = (annotation.question, annotation.answer, annotation.think or "")
    return annotation.task, annotation.options, *(_words(text) for text in texts)


@lru_cache(maxsize=4096)  # of one clip's texts each is compared with many
def _words(text: str) -> str:
    """Words alone, in lower case and between spaces, so that whole words are found."""
    return f" {' '.join(re.findall(r'[a-z0-9]+', text.lower()))} "


FILTERS: tuple[Filter, ...] = (misplaced, empty, tagged, unreadable, too_long, against_truth, leaking, repeated)
