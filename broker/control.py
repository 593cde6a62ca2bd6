"""The model repository extension: load and unload on request, and the index of the repository. Pure."""

from collections.abc import Iterable

from broker.archives import Archives
from broker.compositions import dependents, parts
from broker.effects import Effect, Send
from broker.fleet import Fleet
from broker.messages import (
    Answer,
    DescribeModel,
    ErrorCode,
    GetRepositoryIndex,
    LoadModel,
    ModelConsidered,
    UnloadModel,
    WatchRepository,
)
from broker.models import Model, VersionState
from broker.validation import Rejected
from configs.namespaces import bare_name, meant

UNLOADED = "unloaded"
_OVERTAKEN = "it has been unloaded meanwhile"
_NOT_EXPLICIT = "explicit model load / unload is not allowed if polling is enabled"


class Control:
    """Loads that clients wait for, and what the repository holds."""

    def __init__(self, fleet: Fleet, is_explicit: bool, out: list[Effect], at_start: Iterable[str] = ()) -> None:
        """`is_explicit`: the model control mode allows clients to load and unload; `at_start` are loaded already."""
        self._fleet = fleet
        self._is_explicit = is_explicit
        self._out = out
        self._asked_for = set(at_start)  # models that are loaded for their own sake, not for an ensemble's
        # What the repository process looks into, by model: who asked, and whether it brings a configuration.
        self._considered: dict[str, list[tuple[str, int, bool]]] = {}
        self._loading: list[tuple[str, str, int]] = []  # (model, peer, request) that wait for workers
        self._overridden: set[str] = set()  # models under a load request's configuration
        self._suspended: dict[str, list[str]] = {}  # ensembles that were unloaded with one of their models, and these
        self.listed: tuple[str, ...] = ()  # the models in the repository
        self.errors: dict[str, str] = {}  # why some of them cannot be loaded
        self.archives = Archives()

    def load(self, peer: str, wanted: LoadModel, repository: str | None) -> None:
        """A client wants a model loaded: the repository process looks into it first."""
        name = wanted.model
        try:
            self._check(name, repository)
            if wanted.archive:
                self.archives.begin(peer, wanted, self._is_served(name))
        except Rejected as error:
            self._answer(peer, wanted.request, error.code, str(error))
            return
        assert repository is not None
        self._asked_for.update(meant(name, self.listed))
        self._suspended.pop(name, None)
        self._considered.setdefault(name, []).append((peer, wanted.request, bool(wanted.config)))
        self._out.append(Send(repository, DescribeModel(*wanted[1:])))
        for ensemble in self._returning(name):
            self._considered.setdefault(ensemble, []).append(("", 0, False))
            self._out.append(Send(repository, DescribeModel(ensemble, "", {})))

    def _returning(self, name: str) -> list[str]:
        """The ensembles that were unloaded with this model, which is being loaded again, and lack no other."""
        there = {name, *[other for other, model in self._fleet.models.items() if model.is_served]}
        found: list[str] = []
        while ready := [e for e, needed in self._suspended.items() if there.issuperset(needed)]:
            for ensemble in ready:
                del self._suspended[ensemble]
            there.update(ready)
            found += ready
        return found

    def considered(self, message: ModelConsidered) -> None:
        """The repository process has looked into a model: it was described, or this is what is wrong."""
        waiting = self._considered.get(message.model)
        if not waiting:
            return
        peer, request, is_override = waiting.pop(0)
        if not waiting:
            del self._considered[message.model]
        if message.error:
            text = f"failed to load '{message.model}', failed to poll from model repository: {message.error}"
            self._answer(peer, request, ErrorCode.INTERNAL, text)
            model = self._fleet.models.get(message.model)
            if model is not None and model.is_served and not is_override:
                self._fleet.reject(message.model, message.error)
        elif peer:
            (self._overridden.add if is_override else self._overridden.discard)(message.model)
            self._loading.append((message.model, peer, request))

    def repository_lost(self) -> None:
        """The repository process has died: what it was asked is not answered."""
        for model, waiting in self._considered.items():
            for peer, request, _ in waiting:
                text = f"failed to load '{model}', the repository process died"
                self._answer(peer, request, ErrorCode.UNAVAILABLE, text)
        self._considered.clear()

    def watch(self, is_first: bool) -> WatchRepository:
        """What a repository process that begins is told of what clients want to be served."""
        wanted = [name for name, model in self._fleet.models.items() if model.description is not None or model.rejected]
        overridden = {*self._overridden, *self.archives.by_model()}.intersection(wanted)
        return WatchRepository(is_first, tuple(n for n in wanted if n not in overridden), tuple(overridden))

    def unload(self, wanted: UnloadModel, now: float) -> list[str]:
        """Take a model out of service, and the ensembles that it is part of; an unknown one is no error.

        With `unload_dependents` also what was loaded only for them. The models that are unloaded. Raises Rejected.
        """
        if not self._is_explicit:
            raise Rejected(_NOT_EXPLICIT, ErrorCode.UNAVAILABLE)
        models = self._fleet.models
        names = meant(wanted.model, models)
        suspended = {name: parts(models, name) for name in dependents(models, names) if name not in names}
        for name in names:
            self._suspended.pop(name, None)
        self._suspended |= suspended
        names += suspended
        way = list(names) if wanted.unload_dependents else []
        while way:
            for part in parts(models, way.pop()):
                users = dependents(models, [part])
                if part not in names and not self._asked_for & {part, "*"} and set(users) <= set(names):
                    names.append(part)
                    way.append(part)
        for name in names:
            self._asked_for -= {name} - suspended.keys()
            self._overridden.discard(name)
            self._fleet.unload(name, now)
            self.archives.forget(name)
        return names

    def index(self, question: GetRepositoryIndex) -> list[dict[str, str]]:
        """Every model of the repository and every version that was ever loaded."""
        models = self._fleet.models
        rows: list[dict[str, str]] = []
        for name in sorted({*self.listed, *models}):
            model = models.get(name)
            states = _states(model) if model is not None else {}
            if not states:
                row = {"name": bare_name(name)}
                reason = (model.rejected if model is not None else "") or self.errors.get(name, "")
                if reason:
                    row |= {"state": VersionState.UNAVAILABLE.value, "reason": reason}
                rows.append(row)
            for number, (state, reason) in sorted(states.items()):
                row = {"name": bare_name(name), "version": str(number), "state": state.value}
                rows.append({**row, "reason": reason} if reason else row)
        return [row for row in rows if not question.ready or row.get("state") == VersionState.READY.value]

    @property
    def is_waiting(self) -> bool:
        """Whether `settle` may have something to do."""
        return bool(self._loading)

    def settle(self, now: float) -> None:
        """Answer the loads that are done; called after every event."""
        if not self._loading:
            return
        waiting, self._loading = self._loading, []
        for name, peer, request in waiting:
            models = [self._fleet.models.get(each) for each in meant(name, self._fleet.models)]
            if any(model is not None and _is_loading(model) for model in models):
                self._loading.append((name, peer, request))
                continue
            failures = "".join([_failures(model) for model in models if model is not None])
            if failures:
                text = f"load failed for model '{name}': {failures}"
                if self.archives.is_awaited(peer, request):
                    self._fleet.unload(name, now)  # nobody but the platform knows it: it is not held against us
                self._answer(peer, request, ErrorCode.INVALID_ARG, text)
            elif any(model is None or model.description is None for model in models):
                self._answer(peer, request, ErrorCode.UNAVAILABLE, f"load failed for model '{name}': {_OVERTAKEN}")
            else:
                self._answer(peer, request, ErrorCode.OK, "")

    def _check(self, name: str, repository: str | None) -> None:
        """Raises Rejected when a load makes no sense."""
        if not self._is_explicit:
            raise Rejected(_NOT_EXPLICIT, ErrorCode.UNAVAILABLE)
        if not name.strip():
            raise Rejected("Model name cannot be empty. Please enter a valid name to deploy.")
        if "/" in name or ".." in name or "\0" in name:
            raise Rejected(f"invalid model name '{name}', model name must not contain path traversal characters")
        if repository is None:
            raise Rejected(f"failed to load '{name}', the repository process is not running", ErrorCode.UNAVAILABLE)

    def _is_served(self, name: str) -> bool:
        model = self._fleet.models.get(name)
        return name in self._considered or (model is not None and model.description is not None)

    def _answer(self, peer: str, request: int, code: ErrorCode, error: str) -> None:
        """Nobody waits for what is loaded again with one of its models."""
        if not peer:
            return
        self.archives.loaded(peer, request, code)
        self._out.append(Send(peer, Answer(request, code, error, None)))


def _is_loading(model: Model) -> bool:
    return any(v.state is VersionState.LOADING for v in (*model.versions.values(), *model.incoming.values()))


def _failures(model: Model) -> str:
    """Why versions of the newest description were not loaded."""
    if model.description is not None and model.description.steps:
        return "".join([f"{reason}\n" for reason in dict.fromkeys(model.failures.values())])
    failures = sorted(model.failures.items())
    return "".join([f"version {number} is at UNAVAILABLE state: {reason};\n" for number, reason in failures])


def _states(model: Model) -> dict[int, tuple[VersionState, str]]:
    """The state of each version; the reason of one that serves is why a newer configuration does not."""
    states: dict[int, tuple[VersionState, str]] = dict.fromkeys(model.unloaded, (VersionState.UNAVAILABLE, UNLOADED))
    states |= {number: (VersionState.UNAVAILABLE, reason) for number, reason in model.failures.items()}
    for version in model.retiring:
        states[version.number] = (VersionState.UNLOADING, "")
    for versions in (model.incoming, model.versions):
        for number, version in versions.items():
            states[number] = (version.state, version.remark or (model.rejected if versions is model.versions else ""))
    return states
