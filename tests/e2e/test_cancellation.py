"""Clients that go away: what they asked for is not executed any more, and nobody else is disturbed."""

from collections.abc import Callable

import pytest
from tritonclient.utils import InferenceServerException

from tests.support.calls import Calls
from tests.support.clients import PROTOCOLS, Client
from tests.support.repository import ECHO, WAIT, Commands
from tests.support.server import Server
from tests.support.waiting import until


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_queued_request_whose_client_has_gone_is_not_executed(
    new_server: Callable[..., Server], protocol: str
) -> None:
    server = new_server()
    model = Commands(server.repository)
    with server:
        calls = Calls(server, model)
        executing = calls.send(WAIT, 1, protocol)
        until(lambda: model.executions(WAIT, 1), 30, "a request is being executed")
        with Client(protocol, server, seconds=1) as impatient, pytest.raises((InferenceServerException, OSError)):
            impatient.infer(model.name, {"IN": model.order(ECHO, 2)})
        mine = {"model": model.name}
        until(lambda: server.metric("nv_inference_pending_request_count", **mine) == 0, 30, "it left the queue")
        model.let_go(1)
        assert executing.result(30)[0] == 1
        assert calls.send(ECHO, 3, protocol).result(30)[0] == 3
        assert not model.executions(ECHO, 2)
        assert server.metric("nv_inference_request_failure", reason="CANCELED", **mine) == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_client_that_goes_while_its_request_is_executed_disturbs_nobody(
    new_server: Callable[..., Server], protocol: str
) -> None:
    server = new_server()
    model = Commands(server.repository)
    with server:
        calls = Calls(server, model)
        with Client(protocol, server, seconds=1) as impatient, pytest.raises((InferenceServerException, OSError)):
            impatient.infer(model.name, {"IN": model.order(WAIT, 1)})
        assert len(model.executions(WAIT, 1)) == 1
        waiting = [calls.send(ECHO, number, protocol) for number in range(2, 6)]
        model.let_go(1)
        assert [call.result(30)[0] for call in waiting] == [2, 3, 4, 5]
        assert len(model.executions(WAIT, 1)) == 1
