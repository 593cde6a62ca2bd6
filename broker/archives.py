"""Models that a platform brings in archives of their own, as SageMaker's multi-model endpoints do. Pure."""

from broker.messages import ErrorCode, LoadModel
from broker.validation import Rejected


class Archives:
    """Which model was loaded from which archive."""

    def __init__(self) -> None:
        """Nothing was brought yet."""
        self._by_model: dict[str, str] = {}  # loaded, or on their way
        self._awaited: dict[tuple[str, int], str] = {}  # models on their way, by the peer and request that wait

    def begin(self, peer: str, wanted: LoadModel, is_served: bool) -> None:
        """A model is to be loaded from an archive. Raises Rejected when model or archive are in use."""
        if wanted.archive in self._by_model.values():
            text = f"model repository '{wanted.archive}' has already been registered"
            raise Rejected(text, ErrorCode.ALREADY_EXISTS)
        if is_served or wanted.model in self._by_model:
            raise Rejected(f"model '{wanted.model}' has already been loaded", ErrorCode.ALREADY_EXISTS)
        self._by_model[wanted.model] = wanted.archive
        self._awaited[peer, wanted.request] = wanted.model

    def is_awaited(self, peer: str, request: int) -> bool:
        """Whether this request waits for a model out of an archive."""
        return (peer, request) in self._awaited

    def loaded(self, peer: str, request: int, code: ErrorCode) -> None:
        """A request to load is answered; it may be none of ours."""
        model = self._awaited.pop((peer, request), "")
        if model and code != ErrorCode.OK:
            self.forget(model)

    def forget(self, model: str) -> None:
        """A model is unloaded."""
        self._by_model.pop(model, None)

    def by_model(self) -> dict[str, str]:
        """The archives of the models that are loaded, in the order of their loading."""
        awaited = {*self._awaited.values()}
        return {model: archive for model, archive in self._by_model.items() if model not in awaited}
