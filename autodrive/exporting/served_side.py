"""What a server makes of a student's questions about clips, whose frames it is sent as the student sees them."""

from collections.abc import Iterator, Mapping, Sequence

from autodrive.endpoints.calls import ChatCall, Part, Sampling
from autodrive.endpoints.client import CallFailed, ChatClient
from autodrive.endpoints.pictures import Form, Sending, parts_of
from autodrive.errors import InputError
from autodrive.exporting.parity import Said, without_runs
from autodrive.inference.served import MOST_LOG_PROBS, option_scores
from autodrive.schema import Mode
from autodrive.trees.sample import Branch, ClipSample, Video


def served_side(
    client: ChatClient,
    samples: Sequence[ClipSample],
    limits: Mapping[str, Mapping[Mode, int]],
    form: Form,
    sending: Sending,
) -> Iterator[Said]:
    """Ask a server everything that samples ask, in their order; nothing is kept.

    Args:
        client: Asks the model.
        samples: Clips with questions, without answers.
        limits: Most tokens of a reply, by the question's id and its mode.
        form: How each frame is written; only `png` is exact.
        sending: As a picture each or as one film.

    Raises:
        InputError: The server refuses, or a request failed.
    """
    for sample in samples:
        shown: list[Part] = []
        for part in sample.prefix:
            shown += parts_of(part.frames, form, sending, times=False) if isinstance(part, Video) else [part.text]
        for branch in sample.branches:
            user = (*shown, branch.turns[0].prompt)
            yield _said(client, sample.system, user, branch, limits[branch.annotation_id][branch.mode])


def _said(client: ChatClient, system: str, user: tuple[Part, ...], branch: Branch, limit: int) -> Said:
    asks = MOST_LOG_PROBS if branch.option_targets else 0
    call = ChatCall("parity", "1", system, user, Sampling(limit), top_log_probs=asks)
    try:
        reply = client.send(call)
    except CallFailed as failure:
        where = f"base_url={client.base_url} model={client.model}"
        raise InputError(f"{where}: no reply ({failure}); mend the server, and compare again") from None
    ids = client.prompt_ids(call)
    return Said(
        reply=reply.text,
        scores=option_scores(branch.option_targets, reply),
        num_tokens=reply.prompt_tokens,
        ids=None if ids is None else without_runs(ids),
    )
