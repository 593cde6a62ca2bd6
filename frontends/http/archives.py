"""SageMaker's multi-model endpoints: the platform unpacks an archive, and has its model loaded, asked and unloaded."""

import asyncio
import re

from aiohttp import hdrs, web

from broker.messages import ErrorCode, GetArchives, GetRepositoryIndex, LoadModel, UnloadModel
from frontends.errors import RequestError
from frontends.http.body import receive_text
from frontends.http.call import Call
from frontends.http.compression import UnknownEncoding, is_compressed
from frontends.http.documents import is_object, parse, string
from frontends.http.infer import infer
from frontends.http.replies import document, done, refused
from shm.arena import Buffer

UNLOAD_SECONDS = 350.0
"""How long SageMaker waits for a model to be unloaded."""
LOOK_SECONDS = 0.1
_NO_MEMORY = re.compile(
    r"out[ _]of[ _]memory|failed to allocate|no space left on device|"
    r"CU(BLAS|DNN)_STATUS_(ALLOC_FAILED|NOT_INITIALIZED)",
    re.IGNORECASE,
)
"""What frameworks say when the machine is full: the platform unloads other models then."""


async def list_models(call: Call) -> web.Response:
    """All models that were loaded from archives."""
    return document({"models": [_row(*each) for each in (await call.ask(GetArchives)).items()]})


async def show_model(call: Call) -> web.Response:
    """One of them."""
    archives = await call.ask(GetArchives)
    return document(_row(call.model, archives[call.model])) if call.model in archives else refused(404)


async def load(call: Call) -> web.Response:
    """Load the model of an archive; done when it is loaded."""
    try:
        model, archive = _wanted(await receive_text(call.request, call.options.max_input_byte_size))
        await call.ask(lambda number: LoadModel(number, model, "", {}, archive))
    except RequestError as error:
        return refused(409 if error.code == ErrorCode.ALREADY_EXISTS else _status(error), error.message)
    return done()


async def unload(call: Call) -> web.Response:
    """Unload a model; done when nothing of it is left."""
    if call.model not in await call.ask(GetArchives):
        return refused(404)
    try:
        await call.ask(lambda number: UnloadModel(number, call.model, unload_dependents=True))
    except RequestError as error:
        return refused(400, error.message)
    for _ in range(round(UNLOAD_SECONDS / LOOK_SECONDS)):
        if not await _is_there(call):
            return done()
        await asyncio.sleep(LOOK_SECONDS)
    return refused(400, f"model '{call.model}' has not been unloaded within {UNLOAD_SECONDS:g} s")


async def invoke(call: Call) -> web.StreamResponse:
    """Inference with one of the models: what the platform calls it stands in the path."""
    if call.model not in await call.ask(GetArchives):
        return refused(404)
    try:
        is_compressed(call.request.headers.get(hdrs.CONTENT_ENCODING, "identity"))
        return await infer(call)
    except UnknownEncoding as error:
        return refused(415, error.message)
    except RequestError as error:
        return refused(_status(error), error.message)


def _wanted(text: Buffer) -> tuple[str, str]:
    """The model and the archive in the body of a load. Raises RequestError."""
    members = parse(text)
    if not is_object(members):
        raise RequestError(ErrorCode.INVALID_ARG, 'the body of a load is {"model_name": NAME, "url": DIRECTORY}')
    model, archive = string(members.get("model_name", "")), string(members.get("url", ""))
    if not archive:
        raise RequestError(ErrorCode.INVALID_ARG, "failed to register '', repository not found")
    return model, archive


def _row(model: str, archive: str) -> dict[str, str]:
    return {"modelName": model, "modelUrl": archive}


def _status(error: RequestError) -> int:
    return 507 if _NO_MEMORY.search(error.message) else 400


async def _is_there(call: Call) -> bool:
    """Whether a version of the model is still being unloaded."""
    rows = await call.ask(lambda number: GetRepositoryIndex(number, False))
    return any(row["name"] == call.model and row.get("state") != "UNAVAILABLE" for row in rows if "state" in row)
