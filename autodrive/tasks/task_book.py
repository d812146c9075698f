"""The words of a run: the system prompt and the tasks it can be asked."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from autodrive.errors import InputError
from autodrive.schema import Annotation
from autodrive.tasks.task import Task


@dataclass(frozen=True)
class TaskBook:
    """System prompt and tasks, built from `conf/prompts/*.yaml`.

    Attributes:
        system: The system prompt that every conversation begins with.
        tasks: The tasks by name.
        headline: Name of the task whose scores carry no task name, by which validation chooses a checkpoint and whose
            confusion matrix reports show.
    """

    system: str
    tasks: Mapping[str, Task]
    headline: str

    def __post_init__(self) -> None:
        for key, task in self.tasks.items():
            if key != task.name:
                raise InputError(f"prompts.tasks.{key}.name={task.name}: must be {key}, as the key says")
        if self.headline not in self.tasks:
            raise InputError(f"prompts.headline={self.headline}: choose from the tasks, {', '.join(self.tasks)}")

    def __getitem__(self, name: str) -> Task:
        """The task of this name.

        Raises:
            InputError: The book holds no task of this name.
        """
        if name not in self.tasks:
            raise InputError(f"prompts.tasks: no task {name!r}; add it to conf/tasks and to the list in conf/prompts")
        return self.tasks[name]

    @property
    def hash(self) -> str:
        """Identifies the wording: 12 hexadecimal digits."""
        wordings = {name: dict(task.wording) for name, task in self.tasks.items()}
        text = json.dumps([self.system, wordings], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def headline_answers(self, annotations: Iterable[Annotation]) -> dict[str, int]:
        """Index of the right option by annotation id, for the headline task's questions."""
        asked = [a for a in annotations if a.task == self.headline]
        return {a.id: a.options.index(a.answer) for a in asked if a.options}
