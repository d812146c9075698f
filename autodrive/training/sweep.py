"""A job of a sweep must not stop the others: its failure becomes a file."""

import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autodrive.entry_point import WRONG_CONFIGURATION, explain
from autodrive.errors import InputError

log = logging.getLogger(__name__)


@contextmanager
def record_failure(run_dir: Path) -> Iterator[None]:
    """Write `error.json` if the body raises, and swallow the exception; remove a stale one if it does not."""
    path = run_dir / "error.json"
    try:
        yield
    except Exception as error:
        log.error("%s failed: %s", run_dir.name, explain(error))
        kind = InputError if isinstance(error, WRONG_CONFIGURATION) else type(error)
        facts = {"type": kind.__name__, "message": explain(error), "traceback": traceback.format_exc()}
        path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    else:
        path.unlink(missing_ok=True)
