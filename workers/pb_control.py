"""Model control from a model: `is_model_ready`, `load_model` and `unload_model` of `triton_python_backend_utils`."""

from broker.messages import Answer, ErrorCode, GetModelReady, LoadModel, UnloadModel
from workers.pb_errors import TritonModelException, check_integer, check_text
from workers.pb_server import server

_FILE = "file:"


def is_model_ready(model_name: str, model_version: str = "") -> bool:
    """Whether a model, or this version of it, can be called. Raises TritonModelException for a version of no number."""
    check_text(model_name)
    try:
        version = check_integer("model_version", int(model_version)) if model_version else -1
    except ValueError:
        raise TritonModelException(f"failed to get model version from '{model_version}': not a number") from None
    answer = server.ask(lambda number: GetModelReady(number, model_name, version))
    return answer.code == ErrorCode.OK and bool(answer.content["ready"])


def load_model(model_name: str, config: str = "", files: dict[str, bytes] | None = None) -> None:
    """Load or reload a model, and wait until it is ready. Raises TritonModelException.

    `config` is a configuration in JSON, `files` contents by `file:` and the path in the model's directory.
    """
    if files and not config:
        raise TritonModelException("Failed to load model: `files` need `config` to be given, too")
    check_text(model_name)
    check_text(config)
    contents = {name.removeprefix(_FILE): bytes(content) for name, content in (files or {}).items()}
    answer = server.ask(lambda number: LoadModel(number, model_name, config, contents))
    _raise_for(answer, "load")


def unload_model(model_name: str, unload_dependents: bool = False) -> None:
    """Begin to unload a model. Raises TritonModelException."""
    check_text(model_name)
    answer = server.ask(lambda number: UnloadModel(number, model_name, bool(unload_dependents)))
    _raise_for(answer, "unload")


def _raise_for(answer: Answer, what: str) -> None:
    if answer.code != ErrorCode.OK:
        raise TritonModelException(
            f"Failed to {what} model: Failed to process the request for model '{server.instance}', "
            f"message: {answer.error}"
        )
