"""Whether plain libraries make of exported files what the student says: option scores and replies, clip by clip.

The student answers all questions of a clip as one tree. The stock model, read from the files by a library that knows
nothing of this project, reads every question with every option, and with the student's reply, as a plain sequence.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from autodrive.schema import Mode
from autodrive.students.student import Student
from autodrive.trees.clip_tree import ClipTree, TokenBranch
from autodrive.trees.packing import pack_trees
from autodrive.trees.sample import ClipSample, Video

ONE_ROW = 10**9
# Most by which a log-probability may differ between student and files. Both compute in float32 with the same numbers,
# in another order: a hundredth of this is usual, a wrong weight is far above it.
MOST_DIFFERENCE = 1e-3


class UnverifiedError(Exception):
    """Exported files do not say what the student says."""


@dataclass(frozen=True)
class Answer:
    """What a student makes of one question about a clip.

    Attributes:
        tree: The clip, of which `branch` is one question.
        branch: The question without an answer, in tokens.
        scores: Log-probability of each of its options; empty where it has none.
        reply_ids: The greedy reply, with the token that ends it if it ended by itself.
    """

    tree: ClipTree
    branch: TokenBranch
    scores: tuple[float, ...]
    reply_ids: tuple[int, ...]

    @property
    def best(self) -> int | None:
        """Number of the option with the highest score; None where there are none."""
        return self.scores.index(max(self.scores)) if self.scores else None


@dataclass(frozen=True)
class PlainSequence:
    """A clip, one question and a continuation, as a stock model reads them.

    Attributes:
        inputs: Its keyword arguments.
        clip_id: The clip.
        answer: Number of the answer that the continuation belongs to.
        option: Number of the option that it is; None: it is the reply.
        ids: Its tokens, the sequence's last.
    """

    inputs: Mapping[str, Tensor]
    clip_id: str
    answer: int
    option: int | None
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Comparison:
    """How far two sets of answers to the same questions are apart.

    Attributes:
        largest: Largest difference of an option's log-probability; nan if one is no number.
        other_best: Questions in which another option is the best.
        other_replies: Questions that are replied to in other words.
    """

    largest: float
    other_best: int
    other_replies: int


def answers_of(student: Student, trees: Iterable[ClipTree], limits: Mapping[str, Mapping[Mode, int]]) -> list[Answer]:
    """Ask a student everything that the trees ask.

    Args:
        student: In whatever type its weights are; put in evaluation mode.
        trees: Clips with questions, without answers.
        limits: Most tokens of a reply, by the question's id and its mode.
    """
    device = next(student.parameters()).device
    student.eval()
    answers: list[Answer] = []
    for tree in trees:
        (row,) = pack_trees([tree], ONE_ROW)
        prefilled = student.prefill(row.to(device))
        scores = prefilled.score_options()
        replies = prefilled.generate([limits[branch.annotation_id][branch.mode] for branch in tree.branches])
        for branch, options, reply in zip(tree.branches, scores, replies, strict=True):
            end = (student.processor.end_id,) if reply.finished else ()
            answers.append(Answer(tree, branch, tuple(options), (*reply.ids, *end)))
    return answers


def spoken(student: Student, answer: Answer) -> str:
    """A student's reply in words."""
    ids = answer.reply_ids
    return student.processor.decode(ids[:-1] if ids[-1:] == (student.processor.end_id,) else ids)


def video_sizes(student: Student, sample: ClipSample) -> tuple[int, int]:
    """Prompt tokens that a clip would lack without its video, and those of one group of its frames."""
    processor = student.processor
    seen, blind = (processor.encode(each) for each in (sample, replace(sample, prefix=())))
    group = 1
    for video in (part for part in sample.prefix if isinstance(part, Video)):
        height, width = video.frames.frames_TCHW.shape[-2:]
        number = processor.frames_per_group
        group = processor.visual_tokens(number, width, height) + processor.tokens_between(number)
    return len(seen.prefix_ids) - len(blind.prefix_ids), group


def plain_sequences(student: Student, answers: Sequence[Answer]) -> list[PlainSequence]:
    """All that a stock model has to read to be compared with these answers of a student."""
    sequences: list[PlainSequence] = []
    for number, answer in enumerate(answers):
        continuations: list[tuple[int | None, tuple[int, ...]]] = [*enumerate(answer.branch.option_ids)]
        if answer.reply_ids:
            continuations.append((None, answer.reply_ids))
        for option, ids in continuations:
            inputs = student.stock_inputs(answer.tree, [*answer.branch.ids, *ids])
            sequences.append(PlainSequence(inputs, answer.tree.clip_id, number, option, ids))
    return sequences


def stock_answers(model: nn.Module, sequences: Iterable[PlainSequence], answers: Sequence[Answer]) -> list[Answer]:
    """What a stock model makes of these sequences: its scores, and the likeliest token at each place of the replies.

    It would have replied the same if each token of the reply is the likeliest after those before it.
    """
    scores = [list(answer.scores) for answer in answers]
    replies = [answer.reply_ids for answer in answers]
    for sequence, log_probs_LV in _read(model, sequences):
        if sequence.option is None:
            replies[sequence.answer] = tuple(log_probs_LV.argmax(-1).tolist())
        else:
            ids = torch.tensor(sequence.ids, device=log_probs_LV.device)
            scores[sequence.answer][sequence.option] = float(log_probs_LV.gather(1, ids[:, None]).sum())
    return [
        replace(answer, scores=tuple(values), reply_ids=reply_ids)
        for answer, values, reply_ids in zip(answers, scores, replies, strict=True)
    ]


def compare_with_stock(model: nn.Module, sequences: Iterable[PlainSequence], answers: Sequence[Answer]) -> Comparison:
    """Compare a student's answers with what a stock model makes of the same sequences."""
    return compare(answers, stock_answers(model, sequences, answers))


def compare(ours: Sequence[Answer], theirs: Sequence[Answer]) -> Comparison:
    """Compare answers to the same questions."""
    pairs = list(zip(ours, theirs, strict=True))
    differences = [abs(a - b) for one, other in pairs for a, b in zip(one.scores, other.scores, strict=True)]
    return Comparison(
        largest=float(torch.tensor(differences or [0.0], dtype=torch.float64).max()),  # nan if one is
        other_best=sum(one.best != other.best for one, other in pairs),
        other_replies=sum(one.reply_ids != other.reply_ids for one, other in pairs),
    )


@torch.inference_mode()
def _read(model: nn.Module, sequences: Iterable[PlainSequence]) -> Iterator[tuple[PlainSequence, Tensor]]:
    """Log-probabilities (L, vocabulary) of every continuation's tokens."""
    model.eval()
    for sequence in sequences:
        logits_NV = model(**sequence.inputs, use_cache=False).logits[0]
        yield sequence, logits_NV[-1 - len(sequence.ids) : -1].float().log_softmax(-1)
