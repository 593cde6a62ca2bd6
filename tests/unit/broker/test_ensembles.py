"""Ensembles in the core: what is executed, in which order, what comes out, and that no memory is left."""

from typing import Any

import pytest

from broker.messages import COMPLETE, ErrorCode, Part
from configs.description import DynamicBatching, QueuePolicy
from tests.unit.broker.describe import batching
from tests.unit.broker.ensemble_world import EnsembleWorld, Step, ensemble, model

ADD = model("add", "IN", "OUT")
SUM = model("sum", "X Y", "OUT")
TWO = model("two", "IN", "A B")
MANY = model("many", "IN", "OUT", decoupled=True)
CHAIN = ensemble("chain", "X", "O", Step("add", {"IN": "X"}, {"OUT": "m"}), Step("add", {"IN": "m"}, {"OUT": "O"}))
FORK = ensemble(
    "fork",
    "X",
    "a O",
    Step("two", {"IN": "X"}, {"A": "a", "B": "b"}),
    Step("sum", {"X": "a", "Y": "b"}, {"OUT": "O"}),
)
STREAM = ensemble("stream", "X", "O", Step("many", {"IN": "X"}, {"OUT": "m"}), Step("add", {"IN": "m"}, {"OUT": "O"}))


def test_the_steps_of_a_chain_run_one_after_the_other() -> None:
    world = EnsembleWorld(ADD, CHAIN)
    asked = world.ask("chain", "X")
    world.settle()
    assert asked.results == [{"O": "add.OUT(IN=add.OUT(IN=X))"}]
    assert asked.parts == [COMPLETE]
    world.check_settled()


def test_a_tensor_may_have_several_readers_and_be_an_output() -> None:
    world = EnsembleWorld(TWO, SUM, FORK)
    asked = world.ask("fork", "X")
    world.settle()
    assert asked.results == [{"a": "two.A(IN=X)", "O": "sum.OUT(X=two.A(IN=X), Y=two.B(IN=X))"}]
    world.check_settled()


def sizes(world: EnsembleWorld, model: str) -> list[int]:
    """The sizes of the batches that a model has executed."""
    statistics = world.core.models[model].versions[1].statistics
    return [row["batch_size"] for row in statistics.to_json(model, 1)["batch_stats"]]


@pytest.mark.parametrize(
    ("wanted", "executed"),
    [(("a",), ["two"]), (("O",), ["two", "sum"]), ((), ["two", "sum"])],
)
def test_only_what_the_wanted_outputs_need_is_executed(wanted: tuple[str, ...], executed: list[str]) -> None:
    world = EnsembleWorld(TWO, SUM, FORK)
    asked = world.ask("fork", "X", outputs=wanted)
    world.settle()
    assert set(asked.results[0]) == set(wanted or ("a", "O"))
    assert [name for name in ("two", "sum") if sizes(world, name)] == executed
    assert world.parameters[0].outputs == (("A",) if wanted == ("a",) else ("A", "B"))
    world.check_settled()


def test_steps_that_need_nothing_of_each_other_run_at_the_same_time() -> None:
    both = ensemble("both", "X", "a b", Step("add", {"IN": "X"}, {"OUT": "a"}), Step("two", {"IN": "X"}, {"A": "b"}))
    world = EnsembleWorld(ADD, TWO, both)
    world.ask("both", "X")
    assert sorted(worker.model for worker in world.busy()) == ["add", "two"]


def test_a_step_gets_what_the_request_says_beside_its_tensors() -> None:
    world = EnsembleWorld(ADD, CHAIN)
    more: dict[str, Any] = {"correlation_id": 7, "flags": 1, "priority": 2, "timeout_us": 5000, "parameters": {"a": 1}}
    world.ask("chain", "X", request_id="mine", **more)
    world.settle()
    for item in world.parameters:
        assert (item.request_id, item.correlation_id, item.flags) == ("mine", 7, 1)
        assert (item.priority, item.timeout_us, item.parameters) == (2, 5000, {"a": 1})


def test_ensembles_in_ensembles() -> None:
    outer = ensemble(
        "outer", "X", "O", Step("chain", {"X": "X"}, {"O": "m"}), Step("fork", {"X": "m"}, {"O": "O", "a": "n"})
    )
    outer = ensemble("outer", "X", "n O", *[Step(s.model, dict(s.inputs), dict(s.outputs)) for s in outer.steps])
    world = EnsembleWorld(ADD, TWO, SUM, outer, CHAIN, FORK)
    asked = world.ask("outer", "X")
    world.settle()
    twice = "add.OUT(IN=add.OUT(IN=X))"
    assert asked.results == [{"n": f"two.A(IN={twice})", "O": f"sum.OUT(X=two.A(IN={twice}), Y=two.B(IN={twice}))"}]
    world.check_settled()


def test_the_first_error_is_the_ensembles_and_names_it() -> None:
    outer = ensemble("outer", "X", "O", Step("chain", {"X": "X"}, {"O": "O"}))
    world = EnsembleWorld(ADD, CHAIN, outer)
    world.failing["add"] = (ErrorCode.NOT_FOUND, "gone")
    asked = world.ask("outer", "X")
    world.settle()
    assert asked.results == [(ErrorCode.NOT_FOUND, "in ensemble 'outer', in ensemble 'chain', gone")]
    assert len(world.parameters) == 1
    assert world.core.models["outer"].versions[1].statistics.failures["OTHER"] == 1
    world.check_settled()


def test_an_error_waits_for_the_steps_that_still_read_the_inputs() -> None:
    both = ensemble("both", "X", "a b", Step("add", {"IN": "X"}, {"OUT": "a"}), Step("two", {"IN": "X"}, {"A": "b"}))
    world = EnsembleWorld(ADD, TWO, both)
    world.failing["add"] = (ErrorCode.INTERNAL, "broken")
    asked = world.ask("both", "X")
    world.work(next(worker for worker in world.busy() if worker.model == "add"))
    assert not asked.parts
    world.settle()
    assert asked.results == [(ErrorCode.INTERNAL, "in ensemble 'both', broken")]
    world.check_settled()


def test_a_step_that_lacks_an_input_is_refused_by_its_model() -> None:
    world = EnsembleWorld(TWO, SUM, FORK)
    world.missing.add(("two", "B"))
    asked = world.ask("fork", "X")
    world.settle()
    ((code, error),) = asked.results
    assert code is ErrorCode.INVALID_ARG
    assert error.startswith("in ensemble 'fork', [request id: <id_unknown>] expected 2 inputs but got 1 inputs")
    world.check_settled()


def test_outputs_that_do_not_come_are_left_out() -> None:
    plain = ensemble("plain", "X", "a b", Step("two", {"IN": "X"}, {"A": "a", "B": "b"}))
    world = EnsembleWorld(TWO, plain)
    world.missing.add(("two", "B"))
    asked = world.ask("plain", "X")
    world.settle()
    assert asked.results == [{"a": "two.A(IN=X)"}]
    world.check_settled()


def test_a_request_that_its_client_cancels_starts_no_further_step() -> None:
    world = EnsembleWorld(ADD, CHAIN)
    asked = world.ask("chain", "X")
    world.cancel(asked)
    assert not asked.parts  # the worker still reads the input
    world.settle()
    assert asked.results == [(ErrorCode.CANCELLED, "")]
    assert len(world.parameters) == 1
    world.check_settled()


def test_a_request_whose_step_is_queued_is_cancelled_at_once() -> None:
    world = EnsembleWorld(ADD, CHAIN)
    first, second = world.ask("chain", "X"), world.ask("chain", "X")
    world.cancel(second)
    assert second.results == [(ErrorCode.CANCELLED, "")]
    world.settle()
    assert first.results == [{"O": "add.OUT(IN=add.OUT(IN=X))"}]
    world.check_settled()


def test_a_request_that_is_cancelled_in_the_moment_in_which_it_comes() -> None:
    world = EnsembleWorld(ADD, CHAIN)
    asked = world.ask("chain", "X", is_cancelled=True)
    assert asked.results == [(ErrorCode.CANCELLED, "")]
    assert not world.busy()
    world.check_settled()


def test_steps_of_several_requests_are_executed_together() -> None:
    together = model("add", "IN", "OUT", batching=batching())
    world = EnsembleWorld(together, ensemble("e", "X", "O", Step("add", {"IN": "X"}, {"OUT": "O"})))
    asked = [world.ask("e", "X") for _ in range(3)]
    world.settle()
    assert [each.results for each in asked] == [[{"O": "add.OUT(IN=X)"}]] * 3
    assert sizes(world, "add") == [1, 2]
    world.check_settled()


def test_a_step_that_waits_too_long_ends_the_ensemble() -> None:
    impatient = DynamicBatching((1,), policies={0: QueuePolicy(default_timeout=1.0)})
    world = EnsembleWorld(model("add", "IN", "OUT", batching=impatient), CHAIN)
    first, second = world.ask("chain", "X"), world.ask("chain", "X")
    world.tick(2.0)
    assert second.results == [(ErrorCode.UNAVAILABLE, "in ensemble 'chain', Request timeout expired")]
    world.settle()
    assert len(first.results) == 1
    world.check_settled()


def test_a_step_whose_queue_is_full_ends_the_ensemble() -> None:
    short = DynamicBatching((1,), policies={0: QueuePolicy(max_queue_size=1)})
    world = EnsembleWorld(model("add", "IN", "OUT", batching=short), CHAIN)
    asked = [world.ask("chain", "X") for _ in range(3)]
    assert asked[2].results[0][1].startswith("in ensemble 'chain', [request id: <id_unknown>] Exceeds maximum queue")
    world.settle()
    world.check_settled()


# ----------------------------------------------------------------------------------------------- decoupled steps


def test_every_response_of_a_decoupled_step_goes_its_own_way() -> None:
    world = EnsembleWorld(ADD, MANY, STREAM)
    asked = world.ask("stream", "X")
    world.settle()
    assert asked.results == [{"O": f"add.OUT(IN=many.OUT(IN=X, {n}))"} for n in range(2)]
    assert asked.parts[0] == Part.CONTENT
    world.check_settled()


def test_no_response_of_a_decoupled_step_is_the_end_alone() -> None:
    world = EnsembleWorld(ADD, MANY, STREAM)
    world.answers["many"] = 0
    asked = world.ask("stream", "X")
    world.settle()
    assert (asked.results, asked.parts) == ([], [Part.FINAL])
    world.check_settled()


def test_a_client_that_takes_nothing_holds_a_decoupled_step_up() -> None:
    world = EnsembleWorld(ADD, MANY, STREAM)
    world.answers["many"] = 50
    asked = world.ask("stream", "X")
    while world.busy():
        world.work(world.busy()[0])
    assert len(asked.results) == 16
    world.consume(asked)
    while world.busy():
        world.work(world.busy()[0])
    assert len(asked.results) == 17
    world.settle()
    assert len(asked.results) == 50
    world.check_settled()


def test_decoupled_ensembles_in_ensembles() -> None:
    outer = ensemble("outer", "X", "O", Step("stream", {"X": "X"}, {"O": "m"}), Step("many", {"IN": "m"}, {"OUT": "O"}))
    world = EnsembleWorld(ADD, MANY, STREAM, outer)
    world.answers["many"] = 20
    asked = world.ask("outer", "X")
    world.settle()
    assert len(asked.results) == 400
    assert len({result["O"] for result in asked.results}) == 400
    world.check_settled()


# ----------------------------------------------------------------------------------------------- deaths


def test_what_a_dead_worker_has_made_can_still_be_read() -> None:
    world = EnsembleWorld(TWO, SUM, FORK)
    asked = world.ask("fork", "X")
    (two,) = world.busy()
    world.work(two)
    world.kill(two, has_begun=False)
    world.settle()
    assert asked.results == [{"a": "two.A(IN=X)", "O": "sum.OUT(X=two.A(IN=X), Y=two.B(IN=X))"}]
    world.check_settled()


def test_a_step_whose_worker_dies_runs_once_more() -> None:
    world = EnsembleWorld(TWO, SUM, FORK)
    asked = world.ask("fork", "X")
    world.work(world.busy()[0])
    (worker,) = world.busy()
    world.kill(worker, has_begun=True)
    world.settle()
    assert asked.results == [{"a": "two.A(IN=X)", "O": "sum.OUT(X=two.A(IN=X), Y=two.B(IN=X))"}]
    world.check_settled()


def test_a_decoupled_step_that_dies_in_the_middle_ends_the_ensemble() -> None:
    world = EnsembleWorld(ADD, MANY, STREAM)
    asked = world.ask("stream", "X")
    many = world.busy()[0]
    world.work(many)
    world.work(many)
    world.kill(many, has_begun=False)
    world.settle()
    code, error = asked.results[-1]
    assert code is ErrorCode.UNAVAILABLE
    assert error.startswith("in ensemble 'stream', the worker of instance 'many_0_0' died")
    world.check_settled()


def test_a_frontend_that_dies_leaves_nothing_of_its_ensembles() -> None:
    world = EnsembleWorld(TWO, SUM, FORK)
    world.ask("fork", "X")
    world.work(world.busy()[0])
    world.kill_frontend()
    world.settle()
    assert len(world.parameters) == 2
    world.check_settled()
    asked = world.ask("fork", "X")
    world.settle()
    assert len(asked.results) == 1
    world.check_settled()


# ----------------------------------------------------------------------------------------------- models come and go


def test_a_server_that_stops_finishes_its_ensembles() -> None:
    world = EnsembleWorld(ADD, CHAIN)
    asked = world.ask("chain", "X")
    world.apply(world.core.drain("SIGTERM", world.now))
    refused = world.ask("chain", "X")
    world.settle()
    assert asked.results == [{"O": "add.OUT(IN=add.OUT(IN=X))"}]
    assert refused.results[0][0] is ErrorCode.UNAVAILABLE
    world.check_settled()


def test_an_ensemble_that_is_edited_changes_when_no_request_sees_it() -> None:
    world = EnsembleWorld(ADD, CHAIN)
    before = world.ask("chain", "X")
    single = ensemble("chain", "X", "O", Step("add", {"IN": "X"}, {"OUT": "O"}), fingerprint="b")
    world.describe(single)
    after = world.ask("chain", "X")
    world.settle()
    assert before.results == [{"O": "add.OUT(IN=add.OUT(IN=X))"}]
    assert after.results == [{"O": "add.OUT(IN=X)"}]
    world.tick(1.0)
    assert not world.core.models["chain"].retiring
    world.describe(ensemble("chain", "X", "O", Step("nothing", {"IN": "X"}, {"OUT": "O"}), fingerprint="c"))
    assert world.state("chain") == ("READY", "")
    assert "contains models that are not available" in world.core.models["chain"].rejected
    kept = world.ask("chain", "X")
    world.settle()
    assert kept.results == [{"O": "add.OUT(IN=X)"}]
    world.check_settled()


def test_a_model_that_is_unloaded_finishes_the_ensembles_under_way() -> None:
    world = EnsembleWorld(TWO, SUM, FORK)
    asked = world.ask("fork", "X")
    world.core.fleet.remove("sum", world.now)
    assert world.core.models["fork"].versions[1].state.value == "READY"  # until the event is over
    world.settle()
    assert asked.results == [{"a": "two.A(IN=X)", "O": "sum.OUT(X=two.A(IN=X), Y=two.B(IN=X))"}]
    assert world.state("fork") == (
        "UNAVAILABLE",
        "ensemble fork contains models that are not available or ambiguous: sum",
    )
    world.describe(SUM)
    assert world.state("fork") == ("READY", "")


def test_statistics_count_the_ensemble_once_and_each_step() -> None:
    world = EnsembleWorld(ADD, CHAIN)
    world.ask("chain", "X")
    world.settle()
    for name in ("chain", "add"):
        world.core.models[name].versions[1].statistics.settle()
    chain, add = (world.core.models[name].versions[1].statistics for name in ("chain", "add"))
    assert (chain.execution_count, chain.inference_count, chain.success.count) == (1, 1, 1)
    assert (add.execution_count, add.success.count) == (2, 2)
    assert (chain.compute_input.ns, chain.compute_infer.ns, chain.compute_output.ns, chain.queue.ns) == (20, 40, 10, 0)
