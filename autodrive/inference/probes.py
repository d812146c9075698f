"""Does a model look? The same questions without the video, with another one, with one frame of it, and through noise.

A model that does as well without the video as with it answers from the questions alone. The forms are DriveBench's
(Xie et al. 2025): text only and corrupted pictures; another clip's video and a repeated frame also
say what of a video is used. Every form leaves the questions, the answers and the clip's id as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from autodrive.errors import InputError
from autodrive.mixture.clip_batches import FrameReader, Show
from autodrive.schema import Clip, ProbeName
from autodrive.seeding import generator_for
from autodrive.trees.sample import Part, Video

# Standard deviation in levels of 255: Gaussian noise of the highest severity of ImageNet-C (Hendrycks and Dietterich
# 2019, 0.38 of the range).
NOISE_LEVELS = 0.38 * 255


@dataclass(frozen=True)
class Blind:
    """No video at all: what follows from the words."""

    def __call__(self, clip: Clip) -> tuple[Part, ...]:
        """Nothing."""
        return ()


@dataclass(frozen=True)
class Shuffled:
    """Another source's video in the place of the clip's own.

    Attributes:
        reader: Reads videos.
        others: By a clip's id the clip that is shown for it.
    """

    reader: FrameReader
    others: Mapping[str, Clip]

    def __call__(self, clip: Clip) -> tuple[Part, ...]:
        """The other clip's video."""
        return self.reader.shown(self.others[clip.id])


@dataclass(frozen=True)
class Frozen:
    """The middle frame of the clip at all its times: what can be seen without motion.

    Attributes:
        reader: Reads videos.
    """

    reader: FrameReader

    def __call__(self, clip: Clip) -> tuple[Part, ...]:
        """A video of as many frames."""
        video = self.reader.read(clip)
        frames_TCHW = video.frames.frames_TCHW
        middle_CHW = frames_TCHW[len(frames_TCHW) // 2]
        return (_with_frames(video, middle_CHW[None].expand_as(frames_TCHW).contiguous()),)


@dataclass(frozen=True)
class Noise:
    """Every value of every pixel with Gaussian noise of its own, from frame to frame another.

    Attributes:
        reader: Reads videos.
        seed: Seed of the noise, which is the same whenever a clip is shown.
    """

    reader: FrameReader
    seed: int

    def __call__(self, clip: Clip) -> tuple[Part, ...]:
        """The clip's video, at the size that the model sees, behind noise."""
        video = self.reader.read(clip)
        frames = video.frames.frames_TCHW
        random = generator_for(self.seed, "noise", clip.id)
        noise = NOISE_LEVELS * random.standard_normal(tuple(frames.shape), dtype=np.float32)
        noisy = (frames.float() + torch.from_numpy(noise)).round().clamp(0, 255)
        return (_with_frames(video, noisy.to(torch.uint8)),)


def probe(name: ProbeName, reader: FrameReader, clips: Sequence[Clip], seed: int) -> Show:
    """What is shown of clips under a probe; it can be sent to loader processes.

    Args:
        name: The probe.
        reader: Reads the clips for whoever is asked.
        clips: All clips that are asked about.
        seed: Seed of the run.

    Raises:
        InputError: `shuffled`, and all clips are of one source video.
    """
    if name == "blind":
        return Blind()
    if name == "shuffled":
        return Shuffled(reader, _of_other_sources(clips, seed))
    return Frozen(reader) if name == "frozen" else Noise(reader, seed)


def _of_other_sources(clips: Sequence[Clip], seed: int) -> dict[str, Clip]:
    """For each clip one that shows another scene: siblings share theirs, and would give the answer of a look-alike."""
    if len({clip.source_video_id for clip in clips}) < 2:
        raise InputError("evaluation.probes=[shuffled]: all clips are of one source video; leave shuffled out")
    others: dict[str, Clip] = {}
    for clip in clips:
        random = generator_for(seed, "shuffled", clip.id)
        other = clip
        while other.source_video_id == clip.source_video_id:
            other = clips[int(random.integers(len(clips)))]
        others[clip.id] = other
    return others


def _with_frames(video: Video, frames_TCHW: torch.Tensor) -> Video:
    return replace(video, frames=replace(video.frames, frames_TCHW=frames_TCHW))
