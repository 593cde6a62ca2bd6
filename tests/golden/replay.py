"""Our side: a running Tidepool of one configuration, and its answers to recorded scenarios."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from tests.golden.configurations import CONFIGURATIONS
from tests.golden.exchange import Exchange
from tests.golden.normalise import normalised
from tests.golden.scenario import RECORDED, Answer, Recorded, Scenario, load
from tests.support.server import Server


def recordings() -> dict[str, dict[str, list[Recorded]]]:
    """Everything that is recorded, by configuration and topic."""
    return {
        name: {file.stem: load(file) for file in sorted((RECORDED / name).glob("*.json"))} for name in CONFIGURATIONS
    }


class Replay:
    """Use as a context manager. A server that does not start says why in `failure`."""

    def __init__(self, configuration: str, directory: Path) -> None:
        """Nothing is started yet."""
        self.failure = ""
        self._configuration = CONFIGURATIONS[configuration]
        self._directory = directory
        self._stack = ExitStack()
        self._answers: dict[int, list[Answer]] = {}

    def __enter__(self) -> "Replay":
        server = Server(self._directory, "", *self._configuration.flags_in(self._directory))
        self._configuration.write(self._directory)
        try:
            server.start()
        except AssertionError as error:
            self.failure = str(error)[-2000:]
            server.wait_for_exit()
            return self
        self._stack.push(server.__exit__)
        addresses = {role: server.address(role) for role in server.ports()}
        self._exchange = self._stack.enter_context(Exchange(addresses))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def answer(self, scenario: Scenario, index: int) -> Answer:
        """Our answer to one step of a scenario; the scenario runs as a whole, once."""
        if id(scenario) not in self._answers:
            self._answers[id(scenario)] = [normalised(a, self._directory) for a in self._exchange.run(scenario.steps)]
        return self._answers[id(scenario)][index]
