"""A role at work: one call a clip, its reply read strictly, and a reason for everything that comes to nothing."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from autodrive.annotation.figures import figures
from autodrive.annotation.forecast import Prices, StageForecast, picture_tokens, text_tokens
from autodrive.annotation.sources import AnnotationSource
from autodrive.annotation.stages import Dropped, Item, Outcome, Setting, Unit
from autodrive.counted import counted
from autodrive.endpoints.calls import ChatCall
from autodrive.endpoints.client import CallFailed, ChatClient
from autodrive.endpoints.vision import VisionProbe
from autodrive.teachers.reading import Unreadable
from autodrive.teachers.roles import Role, Value
from autodrive.teachers.writers import TraceWriter
from autodrive.video.container import UnusableVideo
from autodrive.video.frame_grid import FrameRateUnavailable

log = logging.getLogger(__name__)
WRITTEN_BY: Mapping[Value, str] = {"vlm_caption": "vlm_caption", "wrong_trace": "trace_writer"}
"""Which role's work fills a value into the prompts of later ones."""


@dataclass(frozen=True)
class RoleStage:
    """A stage of annotation that asks a model.

    Attributes:
        role: What is asked.
        client: Who is asked.
        setting: Classes, tasks and seed of the run.
        rule_captions: Gives the caption of a clip by rules, from what is true within its seconds.
        probe: Makes sure that the model sees pictures before the first one is sent; None: not checked.
        earlier: The stages before this one, by name.
    """

    role: Role
    client: ChatClient
    setting: Setting
    rule_captions: AnnotationSource
    probe: VisionProbe | None = None
    earlier: Mapping[str, "RoleStage"] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """See `Stage.name`."""
        return self.role.name

    @property
    def version(self) -> str:
        """All of the role but its address, how it is asked, and the run's words, classes and seed."""
        role, setting = self.role, self.setting
        words = {f.name: repr(getattr(role, f.name)) for f in fields(role) if f.name not in ("base_url", "shown")}
        parts = [words, role.frames and role.frames.identity(), self.client.how, setting.seed, setting.book.hash]
        parts += [[(shown.name, shown.option) for shown in setting.labels.shown.classes]]
        parts += [self.earlier[WRITTEN_BY[value]].version for value in sorted(self.role.values & WRITTEN_BY.keys())]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
        return f"{self.role.generator}/{digest}"

    def items(self, in_hand: Sequence[Item]) -> Iterator[Item]:
        """The clips that have everything the prompt speaks of; how many lack what is logged."""
        lacking: Counter[str] = Counter()
        for item in in_hand:
            missing = [value for value, text in self._values(item).items() if text is None]
            if not self.role.wants(item):
                missing = ["class"]
            if missing:
                lacking.update(missing[:1])
            else:
                yield item
        for what, number in lacking.items():
            log.info("%s: %s not asked about, for want of a %s", self.name, counted(number, "clip"), what)

    def run(self, item: Item) -> Outcome:
        """Ask about one clip and read the reply; see `Stage.run`."""
        try:
            call = self._call(item)
        except FrameRateUnavailable as error:
            return self._without_reply(item, "frame_rate", str(error))
        except UnusableVideo as error:
            return self._without_reply(item, error.reason, error.detail)
        if call.pictures and self.probe is not None:
            self.probe.check()
        try:
            reply = self.client.ask(call)
        except CallFailed as failure:
            return self._without_reply(item, failure.reason, failure.detail)
        try:
            candidates = self.role.read(reply.text, item, self.setting)
        except Unreadable as error:
            detail = f"{error.detail} (reply ended: {reply.finish_reason})"
            row = self._dropped(item, "reply", reply.key, error.reason, detail)
            return Outcome(dropped=(row,), requests=1, replies=1, unparsable=1)
        return Outcome(candidates=tuple(candidates), requests=1, replies=1)

    def forecast(self, in_hand: Sequence[Item], prices: Prices) -> StageForecast:
        """What would be asked about these clips, at most; no video is opened.

        What an earlier role has not written yet is taken to be as long as that role may write.
        """
        calls = at_hand = prompt_tokens = tokens_at_hand = 0
        version = self.version
        for item in in_hand:
            drafted: dict[Value, str | None] = {value: self._drafted(value, item) for value in self.role.values}
            values: dict[Value, str] = {value: text for value, text in drafted.items() if text is not None}
            if not self.role.wants(item) or len(values) < len(drafted):
                continue
            calls += 1
            tokens = text_tokens(self.role.call_with(values, ()).text)
            if self.role.frames is not None and self.role.frames.usable(item.clip):
                num_frames = self.role.frames.count(item.clip)
                tokens += num_frames * picture_tokens(*self.role.frames.size(item.clip))
            prompt_tokens += tokens
            if self.client.cache.knows_about(self._subject(version, item)):
                at_hand += 1
                tokens_at_hand += tokens
        return StageForecast(
            stage=self.name,
            model=self.client.model,
            calls=calls,
            at_hand=at_hand,
            prompt_tokens=prompt_tokens,
            completion_tokens=calls * self.role.sampling.max_tokens,
            cost=prices.cost(prompt_tokens - tokens_at_hand, (calls - at_hand) * self.role.sampling.max_tokens),
        )

    def _drafted(self, value: Value, item: Item) -> str | None:
        writer = WRITTEN_BY.get(value)
        if writer is None:
            return self._value(value, item)
        return "text" * self.earlier[writer].role.sampling.max_tokens  # of four letters a token

    def _values(self, item: Item) -> dict[Value, str | None]:
        """What is filled into the prompt; None for what is not known of the clip."""
        return {value: self._value(value, item) for value in sorted(self.role.values)}

    def _call(self, item: Item) -> ChatCall:
        """The call about a clip of which everything is known; raises as `Role.call` does."""
        values: dict[Value, str] = {value: text for value, text in self._values(item).items() if text is not None}
        return replace(self.role.call(item, values), subject=self._subject(self.version, item))

    def _subject(self, version: str, item: Item) -> str:
        """Tells, before a video is opened, whether the same has been asked about the same seconds."""
        own = {value: self._value(value, item) for value in sorted(self.role.values - WRITTEN_BY.keys())}
        seconds = [item.clip.road.content_hash, item.clip.start_s, item.clip.end_s]
        return hashlib.sha256(json.dumps([version, seconds, own]).encode()).hexdigest()[:16]

    def _value(self, value: Value, item: Item) -> str | None:
        role, labels = self.role, self.setting.labels
        if value == "duration_s":
            return f"{item.facts.duration_s:g}"
        if value == "rule_caption":
            written = self.rule_captions.annotations([item.clip], labels, self.setting.seed)
            return next((a.answer for a in written), None)
        if value == "figures":
            return figures(item.facts)
        if value == "vlm_caption":
            writer = self.earlier[WRITTEN_BY[value]].role.generator
            return next((a.answer for a in item.annotations if a.generator == writer), None)
        if value == "label":
            return None if item.label is None else labels.shown[item.label].option
        if value == "wrong_trace":
            return self._wrong_trace(item)
        assert isinstance(role, TraceWriter)
        (question,) = role.asks.questions(item.clip.id, labels, self.setting.seed, 1)
        return f"{question.question}\n{self.setting.book[question.task].options(question, labels).text}"

    def _wrong_trace(self, item: Item) -> str | None:
        """The trace about a clip that no filter kept, from the reply that held it; None if there is none."""
        writer = self.earlier[WRITTEN_BY["wrong_trace"]]
        if any(annotation.generator == writer.role.generator for annotation in item.annotations):
            return None
        if None in writer._values(item).values():
            return None
        reply = writer.client.delivered(writer._call(item))
        if reply is None:
            return None
        try:
            (candidate,) = writer.role.read(reply.text, item, self.setting)
        except Unreadable:
            return None
        return candidate.think

    def _without_reply(self, item: Item, reason: str, detail: str) -> Outcome:
        row = self._dropped(item, "request", item.clip.id, reason, detail)
        return Outcome(dropped=(row,), requests=1, failed=1)

    def _dropped(self, item: Item, unit: Unit, what: str, reason: str, detail: str) -> Dropped:
        return Dropped(
            item=what,
            reason=reason,
            detail=detail,
            unit=unit,
            stage=self.name,
            clip_id=item.clip.id,
            clip_class=item.label,
        )
