"""What the kernel tells of a repository, and what is said when it tells nothing."""

import os
from pathlib import Path

from broker.file_events import FileEvents
from tests.support.waiting import until


def test_the_model_in_which_something_happens_is_told(tmp_path: Path) -> None:
    repositories = [tmp_path / "one", tmp_path / "two"]
    for repository in repositories:
        (repository / "m" / "1").mkdir(parents=True)
    events = FileEvents([repositories[0], Path(os.path.relpath(repositories[1]))])
    found: set[Path] = set()

    def is_told(model: Path, number: list[int]) -> bool:
        """Written again and again: nobody says when following begins."""
        number[0] += 1
        (model / "1" / "weights").write_text(str(number[0]))
        found.update(path.absolute() for path in events.take())
        return model in {Path(os.path.normpath(path)) for path in found}

    until(lambda: is_told(repositories[0] / "m", [0]), 30, "the model is told")
    assert len(found) == 1
    until(lambda: is_told(repositories[1] / "m", [0]), 30, "so is one of a relative path")
    (repositories[0] / "new").mkdir()
    until(lambda: repositories[0] / "new" in events.take(), 30, "a new model is told")
    assert events.problem() == ""


def test_where_nothing_can_be_followed_it_is_said_why_and_once(tmp_path: Path) -> None:
    events = FileEvents([tmp_path / "nothing"])
    assert "No path" in until(events.problem, 30, "it is said")
    assert events.problem() == ""
