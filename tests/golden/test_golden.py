"""Tidepool answers every recorded request as the real Triton did, but for what `differences.py` lists."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from tests.golden import summary
from tests.golden.compare import differences
from tests.golden.differences import BETTER, UNBUILT, listed
from tests.golden.replay import Replay, recordings
from tests.golden.scenario import Answer, Scenario


class Case(NamedTuple):
    """One recorded request: a step of a scenario, and Triton's answer."""

    id: str
    configuration: str
    scenario: Scenario
    step: int
    answer: Answer


CASES = [
    Case(f"{configuration}/{topic}/{name}", configuration, recorded.scenario, index, recorded.answers[index])
    for configuration, topics in recordings().items()
    for topic, scenarios in topics.items()
    for recorded in scenarios
    for name, index in recorded.requests()
]


@pytest.fixture(scope="module")
def replay_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Replay]]:
    """The running server of a configuration. One runs at a time: the cases of a configuration follow one another."""
    running: dict[str, Replay] = {}
    with ExitStack() as stack:

        def replay(configuration: str) -> Replay:
            if configuration not in running:
                stack.close()
                running.clear()
                running[configuration] = stack.enter_context(
                    Replay(configuration, tmp_path_factory.mktemp(configuration))
                )
            return running[configuration]

        yield replay


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES])
def test_answer(replay_of: Callable[[str], Replay], case: Case) -> None:
    replay = replay_of(case.configuration)
    entry = listed(case.id)
    if replay.failure:
        ours, found = None, [f"the server does not start: {replay.failure}"]
    else:
        ours = replay.answer(case.scenario, case.step)
        found = differences(case.answer, ours)
    summary.count(case.id, bool(found), entry)
    if entry is None:
        assert not found, "\n".join([f"{case.id} differs from Triton's answer:", *found])
    else:
        assert found, f"{case.id} is equal now, but listed as different: {entry.reason}"
        assert re.search(entry.ours, json.dumps(ours), re.DOTALL), (
            f"listed ({entry.reason}), but answers otherwise: {ours}"
        )


def test_every_listed_difference_has_cases() -> None:
    ids = [case.id for case in CASES]
    assert len(ids) == len(set(ids))
    for entry in (*BETTER, *UNBUILT):
        for pattern in entry.cases:
            assert any(entry._replace(cases=(pattern,)).covers(case) for case in ids), pattern
    twice = [case for case in ids if sum(entry.covers(case) for entry in (*BETTER, *UNBUILT)) > 1]
    assert not twice
