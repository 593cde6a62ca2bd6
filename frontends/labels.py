"""The labels of a model's outputs, asked of the broker once per model version."""

from broker.client import Client
from broker.messages import Directory, ErrorCode, GetLabels
from frontends.classification import Classes
from frontends.errors import RequestError


class LabelSource:
    """Remembers what the broker has said, until the broker says that models have changed."""

    def __init__(self, client: Client) -> None:
        """Nothing is asked before `of`."""
        self._client = client
        self._known: dict[tuple[str, int], Classes] = {}
        self._valid_for: Directory | None = None

    async def of(self, model: str, version: int) -> Classes:
        """How the outputs of a model's version are classified. Raises RequestError."""
        if self._valid_for is not self._client.directory:
            self._valid_for = self._client.directory
            self._known = {}
        known = self._known  # a change while we ask makes this an old one, which is dropped
        if (model, version) not in known:
            number = self._client.number()
            answer = await self._client.ask(GetLabels(number, model, version), number)
            if answer.code != ErrorCode.OK:
                raise RequestError(answer.code, answer.error)
            known[model, version] = Classes(answer.content["is_batched"], answer.content["labels"])
        return known[model, version]
