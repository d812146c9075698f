"""Does the server see pictures? Some leave them out without a word: then a model describes what it invents."""

from io import BytesIO
from threading import Lock

from PIL import Image

from autodrive.errors import InputError
from autodrive.teachers.calls import Picture, Sampling, TeacherCall
from autodrive.teachers.client import CallFailed, TeacherClient

COLOURS = {"red": (220, 20, 20), "blue": (20, 20, 220)}
SIDE_PX = 112
QUESTION = "What colour is this picture? Answer with one word."


def colour_call(colour: str) -> TeacherCall:
    """The call that shows a picture of one colour and asks which it is; its words do not depend on the colour."""
    file = BytesIO()
    Image.new("RGB", (SIDE_PX, SIDE_PX), COLOURS[colour]).save(file, "JPEG", quality=95)
    sampling = Sampling(max_tokens=256)  # a model that thinks first needs them, others stop at once
    return TeacherCall("vision_probe", "1", "You describe pictures.", (Picture(file.getvalue()), QUESTION), sampling)


class VisionProbe:
    """Asks a model for the colours of two pictures, once, before the first clip is shown to it."""

    def __init__(self, client: TeacherClient) -> None:
        self.client = client
        self._lock = Lock()
        self._passed = False

    def check(self) -> None:
        """Make sure that the model tells a red picture from a blue one.

        Raises:
            InputError: It names neither, or the same for both, or does not answer.
            Paused: No more calls may be sent.
        """
        with self._lock:
            if self._passed:
                return
            where = f"base_url={self.client.base_url} model={self.client.model}"
            fix = "serve a model that does, take vlm_caption out of teacher.stages, or set teacher.vision=unchecked"
            calls = {colour: colour_call(colour) for colour in COLOURS}
            try:
                replies = {c: self.client.delivered(call) or self.client.send(call) for c, call in calls.items()}
            except CallFailed as failure:
                raise InputError(f"{where}: no reply to a picture ({failure}); {fix}") from None
            for colour, reply in replies.items():
                named = {name for name in COLOURS if name in _last_words(reply.text)}
                if named != {colour}:
                    said = ", ".join(f"{name}: {' '.join(r.text.split())[:40]!r}" for name, r in replies.items())
                    raise InputError(f"{where}: does not tell a red picture from a blue one ({said}); {fix}")
            for reply in replies.values():  # only now: a server that is mended is asked again
                self.client.cache.get_or_ask(reply.key, lambda reply=reply: reply)
            self._passed = True


def _last_words(reply: str) -> str:
    """What a reply says after a trace, in small letters."""
    return reply.rpartition("</think>")[2].lower()
