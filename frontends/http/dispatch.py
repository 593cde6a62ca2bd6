"""What happens to every request: its handler is found and called, errors become responses."""

import logging
from collections.abc import Callable, Mapping
from typing import TypeAlias

from aiohttp import web

from broker.client import Client
from broker.messages import ErrorCode
from frontends.errors import RequestError
from frontends.http import replies
from frontends.http.body import FramingError
from frontends.http.call import Call, Handler, Options
from frontends.http.listener import Dispatch
from frontends.labels import LabelSource

_log = logging.getLogger(__name__)

Find: TypeAlias = Callable[[web.BaseRequest], tuple[Handler, Mapping[str, str]] | web.Response]
"""Finds a request's handler and the names in its path, or the refusal."""


def dispatcher(find: Find, client: Client, options: Options) -> Dispatch:
    """Answers requests with the handlers that `find` finds."""
    labels = LabelSource(client)

    async def dispatch(request: web.BaseRequest) -> web.StreamResponse:
        found = find(request)
        if isinstance(found, web.Response):
            return found
        handler, names = found
        try:
            return await handler(Call(client, options, labels, request, names))
        except FramingError as error:
            response = replies.failure(error)
            response.force_close()
            return response
        except RequestError as error:
            return replies.failure(error)
        except web.RequestPayloadError as error:
            return replies.failure(RequestError(ErrorCode.INVALID_ARG, f"unreadable request body: {error}"))
        except ConnectionError:  # the client is gone: aiohttp ends the connection
            raise
        except Exception as error:
            _log.exception("%s %s failed", request.method, request.raw_path)
            return replies.failure(RequestError(ErrorCode.INTERNAL, f"{type(error).__name__}: {error}"))

    return dispatch
