"""Models that have a say in whether they are ready: their instances are asked, and waited for. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from broker.effects import Effect, Send
from broker.messages import Answer, CheckReady, ErrorCode, GetModelReady, ReadyChecked
from broker.models import Instance

TIMEOUT_SECONDS = 5.0
_TIMED_OUT = "Timed out waiting for user-defined is_ready() response"


@dataclass(slots=True, eq=False)
class _Question:
    """Whoever wants to know, and the instances that have not answered."""

    peer: str
    request: int
    missing: set[str]


@dataclass(slots=True)
class _Check:
    """An instance that is being asked, once for all that want to know meanwhile."""

    number: int
    deadline: float
    questions: list[_Question] = field(default_factory=list)


class Readiness:
    """The checks under way, by the worker's peer."""

    def __init__(self, out: list[Effect]) -> None:
        """`out` collects the effects."""
        self._out = out
        self._checks: dict[str, _Check] = {}
        self._numbers = 0

    def ask(self, peer: str, question: GetModelReady, instances: Iterable[Instance], now: float) -> None:
        """Somebody asks whether a model is ready whose instances want to be asked: all have to say yes."""
        asked = [instance.peer for instance in instances]
        waiting = _Question(peer, question.request, set(asked))
        for worker in asked:
            check = self._checks.get(worker)
            if check is None:
                self._numbers += 1
                check = self._checks[worker] = _Check(self._numbers, now + TIMEOUT_SECONDS)
                self._out.append(Send(worker, CheckReady(self._numbers)))
            check.questions.append(waiting)

    def checked(self, worker: str, message: ReadyChecked) -> None:
        """An instance has answered."""
        check = self._checks.get(worker)
        if check is None or check.number != message.number:
            return
        code = ErrorCode(message.code) if message.code in ErrorCode.__members__.values() else ErrorCode.UNKNOWN
        self._settle(worker, code, message.error)

    def worker_lost(self, worker: str) -> None:
        """An instance is dead."""
        if worker in self._checks:
            self._settle(worker, ErrorCode.UNAVAILABLE, "the instance died while it was asked whether it is ready")

    def frontend_lost(self, peer: str) -> None:
        """Whoever wanted to know is dead."""
        for check in self._checks.values():
            check.questions = [question for question in check.questions if question.peer != peer]

    def tick(self, now: float) -> None:
        """Give up on instances that do not answer."""
        for worker in [worker for worker, check in self._checks.items() if check.deadline <= now]:
            self._settle(worker, ErrorCode.UNAVAILABLE, _TIMED_OUT)

    def next_deadline(self) -> float | None:
        """When `tick` has something to do."""
        return min([check.deadline for check in self._checks.values()], default=None)

    def _settle(self, worker: str, code: ErrorCode, error: str) -> None:
        """The first no is the answer; yes takes them all."""
        for question in self._checks.pop(worker).questions:
            if not question.missing:
                continue
            question.missing.discard(worker)
            if code != ErrorCode.OK:
                question.missing.clear()
                self._out.append(Send(question.peer, Answer(question.request, code, error, None)))
            elif not question.missing:
                self._out.append(Send(question.peer, Answer(question.request, code, "", {"ready": True})))
