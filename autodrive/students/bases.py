"""The base of an adapter: which checkpoint holds the weights that it was trained on, and whether they are the same."""

import json
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from xxhash import xxh3_128

from autodrive.errors import InputError
from autodrive.schema import Record

NEEDED_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja")
CHUNK_BYTES = 1 << 24
ADAPTER_CONFIG = "adapter_config.json"  # peft's name of an adapter's settings


class BaseRecord(Record):
    """What `student.json` says of a base: see `Base`, and the digest of its weights when the adapter was trained."""

    source: str
    revision: str | None
    digest: str


@dataclass(frozen=True)
class Base:
    """A checkpoint in the layout of a student's family.

    Attributes:
        source: Repository on the Hugging Face hub, or a folder: a released checkpoint, or what `Student.save` wrote.
        revision: Commit of the repository; None for a folder.
    """

    source: str
    revision: str | None = None

    def folder(self) -> Path:
        """The folder that holds it; what is missing of a repository is downloaded.

        Raises:
            InputError: There is no such folder, and no such repository within reach.
        """
        if Path(self.source).is_dir():
            return Path(self.source)
        try:
            return Path(snapshot_download(self.source, revision=self.revision, allow_patterns=list(NEEDED_FILES)))
        except (OSError, ValueError, HfHubHTTPError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{self.source}: the checkpoint is not there ({reason}); put it back") from None

    def digest(self) -> str:
        """Identifies its weights by their files' content: XXH3, 128 bits; read from the disk, not into a model.

        Raises:
            InputError: As `folder`, or it holds no safetensors.
        """
        folder = self.folder()
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise InputError(f"{folder}: no *.safetensors there, so it is not the base of an adapter; put it back")
        digest = xxh3_128()
        for file in files:
            with file.open("rb") as content:
                while chunk := content.read(CHUNK_BYTES):
                    digest.update(chunk)
        return digest.hexdigest()

    def record(self) -> dict[str, str | None]:
        """What `student.json` says of it."""
        return BaseRecord(source=self.source, revision=self.revision, digest=self.digest()).model_dump()


def recorded_base(record: BaseRecord, where: Path) -> Base:
    """The base that an adapter was trained on, if its weights are still the same.

    Args:
        record: What was noted when the adapter was trained.
        where: The file that says so, for the error.

    Raises:
        InputError: It has other weights by now, or is not there.
    """
    base = Base(record.source, record.revision)
    if (found := base.digest()) != record.digest:
        message = f"{where}: the adapter was trained on {base.source} with weights {record.digest}"
        raise InputError(f"{message}, but it has {found} now; restore that base")
    return base


def is_adapter_folder(folder: Path) -> bool:
    """Whether a folder holds an adapter in peft's layout, rather than a run."""
    return (folder / ADAPTER_CONFIG).is_file()


def check_base_name(folder: Path, base: Base | None) -> None:
    """Refuse an adapter that was trained elsewhere if it names another base; no weight is read for that.

    A local copy of a repository goes by the name of its folder.

    Args:
        folder: Holds the adapter in peft's layout.
        base: The checkpoint that the configured student is read from; None for one from scratch.

    Raises:
        InputError: It names another one, or none; or there is no base.
    """
    path = folder / ADAPTER_CONFIG
    try:
        named = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(f"{path}: cannot be read ({reason}); give a folder in peft's layout") from None
    if base is None:
        fix = f"choose the student that reads {named}, such as student=qwen2_5_vl_7b"
        raise InputError(f"student_from={folder}: an adapter needs the base that it was trained on; {fix}")
    if not named:
        raise InputError(f"{path}: no base_model_name_or_path, so its base is not known; add the checkpoint's name")
    source = Path(base.source)
    names = {base.source, str(source.absolute()), source.name} if source.is_dir() else {base.source}
    if not names & {named, str(named).rstrip("/").rpartition("/")[2] if source.is_dir() else named}:
        message = f"student_from={folder}: the adapter was trained on {named}, but student.checkpoint={base.source}"
        raise InputError(f"{message}; give the student of that base")
