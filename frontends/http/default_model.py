"""The model of requests that name none, as cloud platforms send them."""

from aiohttp import web

from broker.messages import ErrorCode
from frontends.errors import RequestError
from frontends.http.call import Call, Handler


def of_default_model(handler: Handler, model: str, setting: str) -> Handler:
    """`handler` for the default model: `model`, else the only one that there is; `setting` says how to give it."""

    async def handle(call: Call) -> web.StreamResponse:
        return await handler(call._replace(names={"model": model or _only_model(call, setting)}))

    return handle


def _only_model(call: Call, setting: str) -> str:
    models = list(call.client.directory.backends)
    if len(models) != 1:
        text = f"the server has {len(models)} models: name the one for such requests with {setting}"
        raise RequestError(ErrorCode.INVALID_ARG, text)
    return models[0]
