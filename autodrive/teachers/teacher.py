"""The teacher behind an OpenAI-compatible server: which roles run, in which order, on which models."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from autodrive.annotation.forecast import Prices, StageForecast
from autodrive.annotation.sources import AnnotationSource
from autodrive.annotation.stages import Item, Setting
from autodrive.bounds import Choices, Count
from autodrive.endpoints.client import ChatClient, RequestBudget, Server
from autodrive.endpoints.reply_cache import ReplyCache
from autodrive.endpoints.vision import VisionProbe
from autodrive.errors import InputError
from autodrive.teachers.roles import Role
from autodrive.teachers.stage import WRITTEN_BY, RoleStage

UNSEEING = "serve a model that does, take vlm_caption out of teacher.stages, or set teacher.vision=unchecked"


class OpenAICompatibleTeacher:
    """Models that describe, ask and reason.

    Args:
        roles: What can be asked, by name; each names its model and server.
        stages: Roles that are asked, in their order.
        server: How servers are spoken to.
        rule_captions: Gives the caption of a clip by rules, which most roles read.
        replies: File in which replies are kept.
        prices: What tokens cost, for a dry run.
        max_requests: The most calls that a run sends; None: any number.
        vision: Whether a model must prove that it sees pictures before it is sent any.

    Raises:
        InputError: A stage is no role, or reads what no stage before it writes.
    """

    def __init__(
        self,
        roles: Mapping[str, Role],
        stages: Choices[str],
        server: Server,
        rule_captions: AnnotationSource,
        replies: str,
        prices: Prices,
        max_requests: Count | None = None,
        vision: Literal["probe", "unchecked"] = "probe",
    ) -> None:
        self.roles, self.chosen, self.server, self.rule_captions = roles, stages, server, rule_captions
        self.replies, self.prices, self.max_requests, self.vision = Path(replies), prices, max_requests, vision
        for number, name in enumerate(stages):
            if name not in roles:
                raise InputError(f"teacher.stages: no role {name!r}; choose from {', '.join(roles)}")
            if roles[name].name != name:
                raise InputError(f"teacher.roles.{name}.name={roles[name].name}: must be {name}, as the key says")
            for value, writer in WRITTEN_BY.items():
                if value in roles[name].values and writer not in stages[:number]:
                    fix = f"put {writer} before it, or take {{{value}}} out of teacher.roles.{name}.user"
                    raise InputError(f"teacher.stages: {name} reads what {writer} writes; {fix}")

    def stages(self, setting: Setting) -> Sequence[RoleStage]:
        """See `Teacher.stages`; nothing is sent.

        Raises:
            InputError: The file of replies is damaged, or the key cannot be sent.
        """
        cache, budget = ReplyCache(self.replies), RequestBudget(self.max_requests)
        clients: dict[tuple[str, str], ChatClient] = {}
        probes: dict[tuple[str, str], VisionProbe | None] = {}
        made: dict[str, RoleStage] = {}
        for name in self.chosen:
            role = self.roles[name]
            who = (role.base_url, role.model)
            if who not in clients:
                clients[who] = ChatClient(self.server, *who, cache, budget)
                probes[who] = VisionProbe(clients[who], UNSEEING) if self.vision == "probe" else None
            made[name] = RoleStage(role, clients[who], setting, self.rule_captions, probes[who], dict(made))
        return list(made.values())

    def forecast(self, setting: Setting, in_hand: Sequence[Item]) -> list[StageForecast]:
        """See `Teacher.forecast`; no video is opened."""
        return [stage.forecast(in_hand, self.prices) for stage in self.stages(setting)]
