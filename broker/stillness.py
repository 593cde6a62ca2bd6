"""What is watched, has changed, and has been still for a moment since: half of a change is nothing to act on. Pure."""


class Stillness:
    """Things by name, whose state is anything that changes when they do; None is the state of what is not there."""

    def __init__(self) -> None:
        """Nothing is watched yet."""
        self._taken: dict[str, object] = {}  # the state in which each was acted on
        self._restless: dict[str, tuple[object, int]] = {}  # state at the last look, and looks in a row that saw it
        self._looks: dict[str, int] = {}  # at what is restless, in all

    def take(self, name: str, state: object) -> None:
        """The thing is being acted on as it is now."""
        self._taken[name] = state
        self._rest(name)

    def taken(self, name: str) -> object:
        """The state in which it was acted on, None if it never was."""
        return self._taken.get(name)

    def forget(self, name: str) -> None:
        """The thing is of no interest any more."""
        self._taken.pop(name, None)
        self._rest(name)

    def _rest(self, name: str) -> None:
        self._restless.pop(name, None)
        self._looks.pop(name, None)

    def stir(self, name: str) -> None:
        """It may have changed: it is restless until it has been still."""
        self._restless.setdefault(name, (None, 0))

    def looks(self, name: str) -> int:
        """How often it has been looked at since it became restless."""
        return self._looks.get(name, 0)

    @property
    def restless(self) -> tuple[str, ...]:
        """What has to be looked at."""
        return tuple(self._restless)

    def has_settled(self, name: str, state: object, looks: int) -> bool:
        """A look at what is restless: whether it has changed and kept this state for so many looks after the first.

        What is back in the state in which it was acted on is not restless any more.
        """
        last, seen = self._restless.get(name, (None, 0))
        seen = seen + 1 if seen and state == last else 1
        self._restless[name] = (state, seen)
        self._looks[name] = self._looks.get(name, 0) + 1
        if seen <= looks:
            return False
        self._rest(name)
        return state != self._taken.get(name)
