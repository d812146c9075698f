"""The weightless half of a Qwen3-VL student: time is text between the temporal patches of a video."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from autodrive.students.qwen_processor import Piece, QwenVLProcessor
from autodrive.students.qwen_tokenizer import VISION_END, VISION_START
from autodrive.trees.sample import Video

STAMP_TOKENS = 8  # of "<1.3 seconds>" in the released tokenizers, a start and an end
STAMPS_PER_SECOND = 10  # that can be told apart


@dataclass(frozen=True)
class Qwen3VLProcessor(QwenVLProcessor):
    """The processor of Qwen3-VL and Cosmos-Reason2.

    Before every temporal patch stands when it was taken, to a tenth of a second, as transformers' `Qwen3VLProcessor`
    writes it; a stamp takes about as many tokens as it has characters. Above ten temporal patches a second neighbours
    share a stamp, and their order is all that tells them apart.
    """

    def video_pieces(self, video: Video, grid: tuple[int, int, int]) -> list[Piece]:
        """A stamp, a start, the placeholders of one temporal patch, and an end, for each of them.

        Position ids go on after each as after an image of one frame: their temporal axis does not tell time.
        """
        of_a_patch = Piece(self._placeholders((1, *grid[1:])), (torch.zeros(1, dtype=torch.long), grid[1:]))
        start, end = self._special(VISION_START), self._special(VISION_END)
        pieces = []
        for stamp in self._stamps(video.frames.timestamps_s):
            pieces += [Piece.of_text(stamp + start), of_a_patch, Piece.of_text(end)]
        return pieces

    @property
    def tells_time(self) -> bool:
        """Stamps of other times may take other numbers of tokens."""
        return True

    def video_tokens(self, times_s: Tensor, width: int, height: int) -> int:
        """See `Processor`."""
        marked = sum(len(stamp) + 2 for stamp in self._stamps(times_s))  # a start and an end
        return self.visual_tokens(len(times_s), width, height) + marked

    def _stamps(self, timestamps_s: Tensor) -> list[list[int]]:
        times_s = stamp_times(timestamps_s, self.vision.temporal_patch_size).tolist()
        return [self._text(f"<{time_s:.1f} seconds>") for time_s in times_s]

    def tokens_between(self, num_frames: int) -> int:
        """About as many as stamps, starts and ends: `video_tokens` counts them where the times are known."""
        return math.ceil(num_frames / self.frames_per_group) * STAMP_TOKENS

    def remarks(self, num_frames: int, fps: float) -> list[str]:
        """What stamps cost, and where neighbours share one."""
        groups = math.ceil(num_frames / self.frames_per_group)
        most = groups * self.resolution.max_tokens
        side, older = self.vision.patch_size * self.vision.merge_size, 28
        stamps = f"{groups} stamps of time take {self.tokens_between(num_frames):,} tokens of a clip"
        token = f"a token is {side}x{side} pixels here and {older}x{older} in Qwen2.5-VL"
        pixels, fewer = (f"{self.resolution.max_tokens * width**2:,}" for width in (side, older))
        lines = [
            f"{stamps} beside its {most:,} visual ones or fewer",
            f"resolution={self.resolution}: {token}, so a frame may have {pixels} pixels instead of {fewer}",
        ]
        if (rate := fps / self.frames_per_group) > STAMPS_PER_SECOND:
            lines.append(f"fps={fps:g}: {rate:g} temporal patches a second, so neighbours share a stamp")
        return lines


def stamp_times(timestamps_s: Tensor, temporal_patch_size: int = 2) -> Tensor:
    """When the temporal patches of a clip were taken: halfway between their first and last frame.

    Args:
        timestamps_s: (T,) measured times of the frames, seconds.
        temporal_patch_size: Frames in a temporal patch; the last frame is repeated where some are missing.

    Returns:
        (ceil(T / temporal_patch_size),) float64 seconds from the clip's first frame.
    """
    # Of times late in a file the last digits are lost, and 0.25 s would be written "0.2" in one window and "0.3" in
    # another.
    times_s = (timestamps_s.double() - timestamps_s[0].double()).round(decimals=9)
    missing = -len(times_s) % temporal_patch_size
    patches = torch.cat([times_s, times_s[-1:].expand(missing)]).unflatten(0, (-1, temporal_patch_size))
    return (patches[:, 0] + patches[:, -1]) / 2
