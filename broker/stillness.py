"""What is watched, has changed, and has been still for a moment since: half of a change is nothing to act on. Pure."""

from collections.abc import Hashable


class Stillness:
    """Things by name, whose state is anything that changes when they do; None is the state of what is not there."""

    def __init__(self) -> None:
        """Nothing is watched yet."""
        self._taken: dict[str, Hashable] = {}  # the state in which each was acted on
        self._restless: dict[str, tuple[Hashable, int]] = {}  # state at the last look, and looks in a row that saw it

    def take(self, name: str, state: Hashable) -> None:
        """The thing is being acted on as it is now."""
        self._taken[name] = state
        self._restless.pop(name, None)

    def taken(self, name: str) -> Hashable:
        """The state in which it was acted on, None if it never was."""
        return self._taken.get(name)

    def forget(self, name: str) -> None:
        """The thing is of no interest any more."""
        self._taken.pop(name, None)
        self._restless.pop(name, None)

    def stir(self, name: str) -> None:
        """It may have changed: it is restless until it has been still."""
        self._restless.setdefault(name, (None, 0))

    @property
    def restless(self) -> tuple[str, ...]:
        """What has to be looked at."""
        return tuple(self._restless)

    def has_settled(self, name: str, state: Hashable, looks: int) -> bool:
        """A look at what is restless: whether it has changed and kept this state for so many looks after the first.

        What is back in the state in which it was acted on is not restless any more.
        """
        last, seen = self._restless[name]
        seen = seen + 1 if seen and state == last else 1
        self._restless[name] = (state, seen)
        if seen <= looks:
            return False
        del self._restless[name]
        return state != self._taken.get(name)
