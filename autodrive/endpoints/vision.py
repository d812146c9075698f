"""Does the server see pictures, and in order? Some leave them out, and a model describes what it invents.

Others show a model one of several, or the last one first, and every answer about motion is a guess.
"""

import re
from threading import Lock

import numpy as np

from autodrive.endpoints.calls import ChatCall, Sampling
from autodrive.endpoints.client import CallFailed, ChatClient
from autodrive.endpoints.pictures import Sending, in_order, picture_of
from autodrive.errors import InputError

COLOURS = {"red": (220, 20, 20), "blue": (20, 20, 220)}
ORDERS = (("red", "blue"), ("blue", "red"))
SIDE_PX = 112
AT_A_TIME = 2  # pictures of each colour: models that read pairs of frames as one would see a mixture
QUESTION = "These pictures have one colour each. Which colour comes first, and which comes last? Answer with two words."


def order_call(order: tuple[str, str], sending: Sending) -> ChatCall:
    """The call that shows pictures of two colours in this order and asks for it; its words do not depend on it."""
    pixels = [np.tile(np.array(COLOURS[name], np.uint8)[:, None, None], (1, SIDE_PX, SIDE_PX)) for name in order]
    pictures = [picture_of(frame_CHW, "jpeg") for frame_CHW in pixels for _ in range(AT_A_TIME)]
    sampling = Sampling(max_tokens=256)  # a model that thinks first needs them, others stop at once
    user = (*in_order(pictures, sending), QUESTION)
    return ChatCall("vision_probe", "2", "You describe pictures.", user, sampling)


class VisionProbe:
    """Asks a model for the order of two colours, twice, before the first clip is shown to it.

    Args:
        client: Asks the model.
        fix: What the user can do about a model that fails.
        sending: How pictures are sent.
    """

    def __init__(self, client: ChatClient, fix: str, sending: Sending = "images") -> None:
        self.client, self.fix = client, fix
        self.sending: Sending = sending
        self._lock = Lock()
        self._passed = False

    def check(self) -> None:
        """Make sure that the model sees which colour comes first.

        Raises:
            InputError: It does not see them, sees them in another order, or does not answer.
            Paused: No more calls may be sent.
        """
        with self._lock:
            if self._passed:
                return
            where = f"base_url={self.client.base_url} model={self.client.model}"
            calls = {order: order_call(order, self.sending) for order in ORDERS}
            try:
                replies = {o: self.client.delivered(call) or self.client.send(call) for o, call in calls.items()}
            except CallFailed as failure:
                raise InputError(f"{where}: no reply to pictures ({failure}); {self.fix}") from None
            found = {order: _order(reply.text) for order, reply in replies.items()}
            if any(found[order] != order for order in ORDERS):
                said = ", ".join(f"{', '.join(o)}: {' '.join(r.text.split())[:40]!r}" for o, r in replies.items())
                turned = all(found[order] == order[::-1] for order in ORDERS)
                what = (
                    "shows pictures in another order than they are sent in"
                    if turned
                    else "does not see pictures in order"
                )
                raise InputError(f"{where}: {what} ({said}); {self.fix}")
            for reply in replies.values():  # only now: a server that is mended is asked again
                self.client.cache.get_or_ask(reply.key, lambda reply=reply: reply)
            self._passed = True


def _order(reply: str) -> tuple[str, ...]:
    """The colours that a reply names after a trace, in the order in which it first does."""
    said = reply.rpartition("</think>")[2].lower()
    found = {name: match.start() for name in COLOURS if (match := re.search(rf"\b{name}\b", said))}
    return tuple(sorted(found, key=found.__getitem__))
