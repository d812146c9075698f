"""A model behind an OpenAI-compatible server, asked the same questions about the same frames as any student."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Le
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from autodrive.annotation.supply import AnnotatedClip
from autodrive.bounds import Count, Even, PathText
from autodrive.counted import counted
from autodrive.endpoints.calls import ChatCall, Part, Sampling
from autodrive.endpoints.client import CallFailed, ChatClient, HttpUrl, ModelName, RequestBudget, Server
from autodrive.endpoints.pictures import Form, Sending, fitting_size, parts_of
from autodrive.endpoints.reply_cache import ChatReply, ReplyCache
from autodrive.endpoints.vision import VisionProbe
from autodrive.errors import InputError
from autodrive.executors import LocalExecutor
from autodrive.inference.answering import Respondent, Samples
from autodrive.inference.evaluating import Asking
from autodrive.mixture.clip_batches import AskedClip, BranchWriter, FrameReader, QuestionSamples, frames_for_people
from autodrive.schema import Clip, Mode, Question, Reply, SetAside
from autodrive.seeding import generator_for
from autodrive.trees.sample import Branch, Text, Video

FAILED = "request_failed: "
MOST_LOG_PROBS = 20  # that OpenAI's interface gives of a token


@dataclass(frozen=True)
class ServedModel:
    """A model that somebody serves; what `conf/student/endpoint.yaml` instantiates. It is asked, and cannot be trained.

    Attributes:
        name: Name of the recipe.
        base_url: Address of the server, up to `/v1`.
        model: The model that is asked, as the server calls it.
        server: How the server is spoken to.
        sending: `images`, a part for each frame, or `video`, all frames in one part, as vLLM takes them.
        form: `jpeg`, or `png`, which is larger and exact.
        times: Whether each image has its time in words before it.
        longest_side_px: The longer side of a frame; frames that are smaller are not enlarged.
        log_probs: Whether the server is asked for log-probabilities, for the scores of options.
        vision: Whether the model must show that it sees pictures, and in which order, before it is asked anything.
        concurrency: Clips that are asked about at once.
        replies: Folder in which replies are kept, so that none is asked for twice.
    """

    full_size: ClassVar[bool] = False  # frames have a size of their own, whatever the scale

    name: str
    base_url: HttpUrl
    model: ModelName
    server: Server
    sending: Sending
    form: Form
    times: bool
    longest_side_px: Annotated[int, Ge(28), Le(4096), Even]
    log_probs: bool
    vision: Literal["probe", "unchecked"]
    concurrency: Annotated[Count, Le(1024)]
    replies: PathText

    def frame_size(self, width: int, height: int) -> tuple[int, int]:
        """Height and width in pixels at which frames of a source of this size are sent."""
        return fitting_size(width, height, self.longest_side_px)

    def connect(self) -> ChatClient:
        """A client whose replies are kept; nothing is sent yet.

        Raises:
            InputError: The file of replies is damaged or in use, or the key cannot be sent.
        """
        digest = hashlib.sha256(f"{self.base_url} {self.model}".encode()).hexdigest()[:8]
        slug = re.sub(r"[^\w.-]+", "-", self.model).strip("-.") or "model"
        cache = ReplyCache(Path(self.replies) / f"{slug[-60:]}-{digest}.jsonl")
        return ChatClient(self.server, self.base_url, self.model, cache, RequestBudget())


class ServedAnswerer:
    """A served model with what it is shown; see `Answerer`.

    Args:
        served: Who is asked.
        reader: Reads frames at the size in which they are sent.
        writer: Renders questions.
        clips: All clips that may be asked about, by id.
        client: Sends calls and keeps replies.
    """

    def __init__(
        self,
        served: ServedModel,
        reader: FrameReader,
        writer: BranchWriter,
        clips: Mapping[str, Clip],
        client: ChatClient,
    ) -> None:
        self.served, self.reader, self.writer, self.clips, self.client = served, reader, writer, clips, client
        # Whose weights a server holds, nobody knows but the server.
        self.respondent = Respondent(served.model, None, "served")
        self.unanswered: list[SetAside] = []
        self._without_scores = self._with_options = 0
        self._reading, self._counting = Lock(), Lock()

    def check(self) -> None:
        """See that the model sees pictures, and in which order they are shown.

        Raises:
            InputError: It does not, or the server refuses.
        """
        if self.served.vision == "probe":
            fix = "serve a model that does, or set student.vision=unchecked"
            with self._alone():
                VisionProbe(self.client, fix, self.served.sending).check()

    def replies(self, clips: Sequence[AnnotatedClip], asking: Asking, on_clips: Callable[[int], None]) -> list[Reply]:
        """See `Answerer`; requests that failed have no reply and are in `unanswered`.

        Raises:
            InputError: The server refuses what every question would ask, or none got a reply.
        """
        asked = [AskedClip(clip.clip, dict(clip.questions())) for clip in clips]
        samples = QuestionSamples(asked, asking.show or self.reader.shown, self.writer, asking.modes)
        found: list[Reply] = []
        before = len(self.unanswered)

        def about(place: int) -> list[Reply]:
            with self._reading:  # the frame cache is for one reader of a process
                sample = samples[place]
            shown, replies = self._parts(sample.prefix), []
            for branch in sample.branches:
                question = asked[place].questions[branch.annotation_id]
                for number in (None, *range(asking.samples.number)):
                    user = (*shown, branch.turns[0].prompt)
                    call = self._call(sample.system, user, question, branch.mode, asking.samples, number)
                    replies.append(self._reply(sample.clip_id, branch, question, call, number))
            return [reply for reply in replies if reply is not None]

        with self._alone():
            for _, replies in LocalExecutor("threads", self.served.concurrency).map(about, range(len(asked))):
                found += replies
                on_clips(1)
        failed = self.unanswered[before:]
        if failed and not found:
            reasons = ", ".join(f"{reason} ({number})" for reason, number in _reasons(failed).items())
            where = f"base_url={self.served.base_url} model={self.served.model}"
            raise InputError(f"{where}: no question got a reply: {reasons}; mend the server, and run the same again")
        return found

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep others from writing replies of this model meanwhile."""
        path = self.client.cache.path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(path.with_suffix(".lock"), timeout=0):
                yield
        except Timeout:
            what = "another process asks this model and keeps its replies there"
            raise InputError(f"{path}: {what}; wait for it, or give student.replies=<folder>") from None

    def frames_of(self, clip_id: str) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """What is sent of a clip, for people; see `frames_for_people`."""
        return frames_for_people(self.reader, self.clips[clip_id])

    def facts(self) -> dict[str, Any]:
        """What `provenance.json` says of the asking."""
        remarks: list[str] = []
        if self.unanswered:
            reasons = ", ".join(f"{reason} {number}" for reason, number in _reasons(self.unanswered).items())
            asked = counted(len(self.unanswered), "request")
            remarks.append(f"{asked} got no reply ({reasons}) and count nowhere; the same command asks them again")
        if self._without_scores:
            of = f"{self._without_scores} of {self._with_options} questions with options"
            remarks.append(f"the server gave no log-probabilities of all options for {of}: these have no option scores")
        return {"failed_requests": len(self.unanswered), "remarks": remarks}

    def _parts(self, prefix: Sequence[Text | Video]) -> tuple[Part, ...]:
        parts: list[Part] = []
        for part in prefix:
            if isinstance(part, Text):
                parts.append(part.text)
            else:
                parts += parts_of(part.frames, self.served.form, self.served.sending, times=self.served.times)
        return tuple(parts)

    def _call(
        self,
        system: str,
        user: tuple[Part, ...],
        question: Question,
        mode: Mode,
        samples: Samples,
        number: int | None,
    ) -> ChatCall:
        book = self.writer.book
        scored = self.served.log_probs and bool(question.options) and mode == "direct" and number is None
        return ChatCall(
            role=question.task,
            prompt_hash=book.hash,
            system=system,
            user=user,
            sampling=Sampling(
                max_tokens=book[question.task].max_new_tokens[mode],
                temperature=0.0 if number is None else samples.temperature,
                seed=None if number is None else int(generator_for(samples.seed, "sample", number).integers(2**31)),
            ),
            top_log_probs=MOST_LOG_PROBS if scored else 0,
        )

    def _reply(
        self, clip_id: str, branch: Branch, question: Question, call: ChatCall, number: int | None
    ) -> Reply | None:
        """The reply to a call; None where none came, which is noted."""
        try:
            said = self.client.ask(call)
        except CallFailed as failure:
            what = f"{question.task} of clip {clip_id}, {branch.mode}" + ("" if number is None else f", draw {number}")
            reason = f"{FAILED}{failure.reason}"
            row = SetAside(item=branch.annotation_id, reason=reason, detail=f"{what}: {failure.detail}")
            with self._counting:
                self.unanswered.append(row)
            return None
        scores = option_scores(branch.option_targets, said) if call.top_log_probs else None
        if call.top_log_probs:
            with self._counting:
                self._with_options += 1
                self._without_scores += scores is None
        return self.respondent.reply(
            question,
            call.prompt_hash,
            annotation_id=branch.annotation_id,
            clip_id=clip_id,
            mode=branch.mode,
            reply=said.text,
            finished=said.finish_reason == "stop",
            option_log_probs=scores,
            sample=number,
        )


def option_scores(targets: Sequence[str], said: ChatReply) -> tuple[float, ...] | None:
    """Log-probability of each option's text as the first token of the reply.

    Args:
        targets: What a reply that chooses each option consists of.
        said: The reply.

    Returns:
        None unless each option is one whole token among those that the server gives; nothing is pieced together.
    """
    first = said.first_token or {}
    return tuple(first[target] for target in targets) if targets and set(targets) <= set(first) else None


def _reasons(unanswered: Sequence[SetAside]) -> Counter[str]:
    return Counter(row.reason.removeprefix(FAILED) for row in unanswered)
