"""Load and unload on request, and the index: answers, errors, and what happens when things die meanwhile."""

from typing import Any

import pytest

from broker.effects import Effect, Send
from broker.messages import (
    Answer,
    DescribeModel,
    ErrorCode,
    ForgetModel,
    GetArchives,
    GetRepositoryIndex,
    LoadModel,
    Message,
    ModelConsidered,
    ModelDescribed,
    PathUnused,
    RepositoryListed,
    UnloadModel,
    WatchRepository,
)
from configs.description import ModelDescription
from tests.unit.broker.describe import description, infer
from tests.unit.broker.ensemble_world import Step, ensemble
from tests.unit.broker.world import Process, World


class Client:
    """A frontend that asks, the repository process, and all that is said to them."""

    def __init__(
        self, mode: str = "explicit", *models: ModelDescription, role: str = "http", rejected: str = ""
    ) -> None:
        self.world = World({role: 1}, model_control_mode=mode)
        self.world.start(*models, rejected=rejected)
        self.numbers = 0
        self.answers: dict[int, Answer] = {}
        self.told: list[Message] = []  # the repository
        apply = self.world.apply

        def watch(effects: list[Effect]) -> None:
            for effect in effects:
                if isinstance(effect, Send) and isinstance(effect.message, Answer):
                    assert effect.message.request not in self.answers, "answered twice"
                    self.answers[effect.message.request] = effect.message
                elif isinstance(effect, Send) and effect.peer == self.repository.token:
                    self.told.append(effect.message)
            apply(effects)

        self.repository = self.world.of("repository")[0]
        self.world.apply = watch  # type: ignore[method-assign]  # the world, overheard

    def ask(self, make: Any, *fields: Any) -> int:
        self.numbers += 1
        frontend = self.world.frontends[0]
        self.world.apply(self.world.core.handle(frontend.token, [make(self.numbers, *fields)], self.world.now))
        return self.numbers

    def load(self, model: str, config: str = "", files: dict[str, bytes] | None = None) -> int:
        return self.ask(LoadModel, model, config, files or {})

    def unload(self, model: str) -> int:
        return self.ask(UnloadModel, model, False)

    def index(self, ready: bool = False) -> Any:
        return self.answers[self.ask(GetRepositoryIndex, ready)].content

    def archives(self) -> Any:
        return self.answers[self.ask(GetArchives)].content

    def found(self, *messages: Message) -> None:
        """The repository process says something."""
        self.world.say(self.repository, *messages)
        self.world.deliver(self.repository)

    def describe(self, model: ModelDescription) -> None:
        """The repository process has looked into a model and finds it well."""
        self.found(ModelDescribed(model.to_wire()), ModelConsidered(model.name, ""))

    def boot(self, error: str = "") -> list[Process]:
        """Every worker that starts comes up, or fails."""
        fresh = [worker for worker in self.world.workers if not worker.is_loaded and not worker.is_told_to_stop]
        for worker in fresh:
            self.world.greet(worker)
            self.world.hear(worker)
            self.world.load(worker, error)
        return fresh

    def said(self, number: int) -> tuple[ErrorCode, str]:
        return ErrorCode(self.answers[number].code), self.answers[number].error


def test_a_load_is_answered_when_every_instance_is_ready() -> None:
    client = Client()
    number = client.load("a", "{}", {"1/model.py": b""})
    assert client.told == [DescribeModel("a", "{}", {"1/model.py": b""})]
    client.describe(description("a", count=2))
    one, two = client.world.workers
    client.world.boot(one)
    assert number not in client.answers
    assert client.index() == [{"name": "a", "version": "1", "state": "LOADING"}]
    client.world.boot(two)
    assert client.said(number) == (ErrorCode.OK, "")
    assert client.index() == [{"name": "a", "version": "1", "state": "READY"}]


def test_a_load_of_what_is_loaded_already_is_answered_at_once() -> None:
    client = Client("explicit", description("a"))
    number = client.load("a")
    client.describe(description("a"))
    assert client.said(number) == (ErrorCode.OK, "")
    assert len(client.world.workers) == 1


def parts(name: str, *models: str) -> ModelDescription:
    """An ensemble of these models."""
    tensors = ["IN", *[f"t{number}" for number in range(1, len(models))], "OUT"]
    steps = [Step(model, {"IN": tensors[i]}, {"OUT": tensors[i + 1]}) for i, model in enumerate(models)]
    return ensemble(name, "IN", "OUT", *steps)


def states(client: Client) -> dict[str, str]:
    return {row["name"]: row.get("reason") or row["state"] for row in client.index()}


def test_a_load_of_an_ensemble_is_answered_when_its_models_are_there() -> None:
    client = Client()
    number = client.load("e")
    client.found(ModelDescribed(description("a").to_wire()))
    client.describe(parts("e", "a"))
    assert number not in client.answers
    client.boot()
    assert client.said(number) == (ErrorCode.OK, "")
    assert states(client) == {"a": "READY", "e": "READY"}


def test_a_load_of_an_ensemble_that_cannot_be_served_says_why() -> None:
    client = Client()
    number = client.load("e")
    client.describe(parts("e", "nothing"))
    error = "load failed for model 'e': ensemble e contains models that are not available or ambiguous: nothing\n"
    assert client.said(number) == (ErrorCode.INVALID_ARG, error)


def test_ensembles_are_unloaded_with_any_of_their_models() -> None:
    client = Client("explicit", description("a"), description("b"), parts("e", "a", "b"), parts("f", "e"))
    assert set(states(client).values()) == {"READY"}
    client.unload("a")
    client.world.settle()
    assert states(client) == {"a": "unloaded", "b": "READY", "e": "unloaded", "f": "unloaded"}
    assert [each.model for each in client.told if isinstance(each, ForgetModel)] == ["a", "e", "f"]


def test_ensembles_come_back_with_the_model_that_they_were_unloaded_with() -> None:
    client = Client("explicit", description("a"), description("b"), parts("e", "a", "b"), parts("f", "e"))
    client.unload("a")
    client.world.settle()
    client.told.clear()
    number = client.load("a")
    assert client.told == [DescribeModel(name, "", {}) for name in ("a", "e", "f")]
    for model in (description("a"), parts("e", "a", "b"), parts("f", "e")):
        client.describe(model)
    client.boot()
    assert client.said(number) == (ErrorCode.OK, "")
    assert set(states(client).values()) == {"READY"}


@pytest.mark.parametrize("gone", [["a", "b"], ["a", "e"]])
def test_ensembles_do_not_come_back_when_they_lack_another_or_were_unloaded_themselves(gone: list[str]) -> None:
    client = Client("explicit", description("a"), description("b"), parts("e", "a", "b"), parts("f", "e"))
    for name in gone:
        client.unload(name)
    client.world.settle()
    client.told.clear()
    client.load("a")
    assert client.told == [DescribeModel("a", "", {})]


def test_unload_dependents_takes_what_was_loaded_only_for_the_ensemble() -> None:
    client = Client("explicit", *[description(name) for name in "abc"])
    for name, models in (("e", "ab"), ("f", "bc"), ("g", "e")):
        client.load(name)
        client.describe(parts(name, *models))
    client.load("c")
    client.describe(description("c"))
    client.ask(UnloadModel, "f", True)
    client.world.settle()
    kept = {"a": "READY", "b": "READY", "c": "READY", "e": "READY", "g": "READY"}
    assert states(client) == {**kept, "f": "unloaded"}
    client.ask(UnloadModel, "e", True)
    client.world.settle()
    gone = dict.fromkeys("abefg", "unloaded")
    assert states(client) == {**gone, "c": "READY"}


def test_a_load_that_fails_names_every_version_and_is_held_against_the_server_until_it_is_unloaded() -> None:
    client = Client()
    number = client.load("a")
    client.describe(description("a", versions=(1, 3)))
    client.boot("no GPU")
    lines = [f"version {n} is at UNAVAILABLE state: Internal: no GPU;\n" for n in (1, 3)]
    assert client.said(number) == (ErrorCode.INVALID_ARG, f"load failed for model 'a': {''.join(lines)}")
    reason = {"state": "UNAVAILABLE", "reason": "Internal: no GPU"}
    assert client.index() == [{"name": "a", "version": "1", **reason}, {"name": "a", "version": "3", **reason}]
    assert not client.world.core.is_ready
    client.unload("a")
    client.world.settle()
    assert client.world.core.is_ready


def test_a_failed_reload_keeps_what_serves() -> None:
    client = Client("explicit", description("a"))
    number = client.load("a")
    client.describe(description("a", fingerprint="b", path="/elsewhere/a"))
    client.boot("syntax error")
    assert client.said(number)[1].startswith("load failed for model 'a': version 1 is at UNAVAILABLE state: Internal")
    record = client.world.ask(client.world.frontends[0], infer(0, "a"))
    client.world.settle()
    assert record.responses[0].code == ErrorCode.OK
    reason = "version 1 failed to load: Internal: syntax error"
    assert client.index() == [{"name": "a", "version": "1", "state": "READY", "reason": reason}]
    assert client.world.core.is_ready
    assert PathUnused("/elsewhere/a") in client.told
    client.load("a")
    client.describe(description("a", fingerprint="c"))
    client.boot()
    assert client.index() == [{"name": "a", "version": "1", "state": "READY"}]


def test_a_new_version_that_fails_is_in_the_index_beside_the_one_that_serves() -> None:
    client = Client("explicit", description("a"))
    client.load("a")
    client.describe(description("a", versions=(2,)))
    client.boot("syntax error")
    one, two = client.index()
    assert one == {
        "name": "a",
        "version": "1",
        "state": "READY",
        "reason": "version 2 failed to load: Internal: syntax error",
    }
    assert two == {"name": "a", "version": "2", "state": "UNAVAILABLE", "reason": "Internal: syntax error"}
    assert client.world.core.is_ready


def test_a_configuration_that_cannot_be_read_is_the_reason_in_the_index_until_one_can() -> None:
    client = Client("explicit", description("a"))
    client.load("a")
    client.found(ModelConsidered("a", "config.pbtxt:1:1: nonsense"))
    assert client.index()[0]["reason"] == "config.pbtxt:1:1: nonsense"
    client.load("a", "{}")
    client.found(ModelConsidered("a", "unknown field"))
    assert client.index()[0]["reason"] == "config.pbtxt:1:1: nonsense", "what a request brings is its own affair"
    client.load("a")
    client.describe(description("a"))
    assert "reason" not in client.index()[0]


def test_a_reload_lets_go_of_the_old_files_when_their_last_request_is_done() -> None:
    client = Client("explicit", description("a", path="/old/a"))
    world = client.world
    (old,) = world.workers
    world.ask(world.frontends[0], infer(0, "a"))
    world.begin(old)
    number = client.load("a")
    client.describe(description("a", fingerprint="b", path="/new/a"))
    client.boot()
    assert client.said(number) == (ErrorCode.OK, "")
    assert PathUnused("/old/a") not in client.told
    world.settle()
    assert PathUnused("/old/a") in client.told
    assert PathUnused("/new/a") not in client.told
    world.check_settled()


def test_files_that_serve_on_are_not_let_go() -> None:
    client = Client("explicit", description("a"))
    client.load("a")
    client.describe(description("a", fingerprint="b"))
    client.boot()
    client.world.settle()
    assert not [message for message in client.told if isinstance(message, PathUnused)]


def test_what_the_repository_finds_wrong_is_the_answer() -> None:
    client = Client()
    number = client.load("a")
    client.found(ModelConsidered("a", "there is no directory 'a'"))
    text = "failed to load 'a', failed to poll from model repository: there is no directory 'a'"
    assert client.said(number) == (ErrorCode.INTERNAL, text)


def test_loads_of_one_model_are_answered_in_their_order() -> None:
    client = Client()
    first, second = client.load("a"), client.load("a", "nonsense")
    client.describe(description("a"))
    client.found(ModelConsidered("a", "nonsense"))
    assert client.said(second)[0] == ErrorCode.INTERNAL
    client.boot()
    assert client.said(first)[0] == ErrorCode.OK


def test_an_unload_overtakes_a_load() -> None:
    client = Client()
    number = client.load("a")
    client.describe(description("a"))
    assert client.said(client.unload("a")) == (ErrorCode.OK, "")
    assert client.said(number) == (
        ErrorCode.UNAVAILABLE,
        "load failed for model 'a': it has been unloaded meanwhile",
    )
    client.world.settle()
    client.world.check_settled()


def test_unload_lets_running_requests_finish_and_refuses_new_ones() -> None:
    client = Client("explicit", description("a"))
    world = client.world
    running = world.ask(world.frontends[0], infer(0, "a"))
    (worker,) = world.workers
    world.begin(worker)
    assert client.said(client.unload("a")) == (ErrorCode.OK, "")
    assert ForgetModel("a") in client.told
    assert client.index() == [{"name": "a", "version": "1", "state": "UNLOADING"}]
    late = world.ask(world.frontends[0], infer(0, "a"))
    assert (late.responses[0].code, late.responses[0].error) == (
        ErrorCode.NOT_FOUND,
        "Request for unknown model: 'a' has no available versions",
    )
    world.settle()
    assert running.responses[0].code == ErrorCode.OK
    assert client.index() == [{"name": "a", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}]
    assert PathUnused("/models/a") in client.told
    assert world.core.is_ready
    world.check_settled()


def test_unload_of_an_unknown_model_is_no_error() -> None:
    client = Client()
    assert client.said(client.unload("nope")) == (ErrorCode.OK, "")
    assert client.index() == []


def test_unload_forgives_a_model_whose_configuration_could_not_be_read() -> None:
    client = Client(rejected="a")
    assert not client.world.core.is_ready
    client.unload("a")
    assert client.world.core.is_ready


@pytest.mark.parametrize("mode", ["none", "poll"])
def test_other_modes_refuse(mode: str) -> None:
    client = Client(mode, description("a"))
    text = "explicit model load / unload is not allowed if polling is enabled"
    assert client.said(client.load("a")) == (ErrorCode.UNAVAILABLE, text)
    assert client.said(client.unload("a")) == (ErrorCode.UNAVAILABLE, text)
    assert client.index() == [{"name": "a", "version": "1", "state": "READY"}]


@pytest.mark.parametrize("name", ["a/b", "..", "a\0b"])
def test_a_name_that_is_a_path_is_refused(name: str) -> None:
    client = Client()
    text = f"invalid model name '{name}', model name must not contain path traversal characters"
    assert client.said(client.load(name)) == (ErrorCode.INVALID_ARG, text)
    assert not client.told


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_refused(name: str) -> None:
    client = Client()
    text = "Model name cannot be empty. Please enter a valid name to deploy."
    assert client.said(client.load(name)) == (ErrorCode.INVALID_ARG, text)


def test_loads_are_refused_while_the_repository_process_is_dead() -> None:
    client = Client()
    asked = client.load("a")
    client.world.bury(client.repository)
    assert client.said(asked) == (ErrorCode.UNAVAILABLE, "failed to load 'a', the repository process died")
    text = "failed to load 'a', the repository process is not running"
    assert client.said(client.load("a")) == (ErrorCode.UNAVAILABLE, text)


def test_a_frontend_that_dies_while_it_waits_gets_no_answer_and_harms_nobody() -> None:
    client = Client()
    client.load("a")
    client.world.bury(client.world.frontends[0])
    client.describe(description("a"))
    client.boot()
    client.world.settle()
    client.world.check_settled()


def test_the_index_has_every_model_of_the_repository_and_can_be_of_those_that_are_ready() -> None:
    client = Client("explicit", description("b", versions=(1, 2)))
    client.found(RepositoryListed(("a", "b", "c", "d"), {"d": "model appears in two or more repositories"}))
    client.world.reject("c", "model appears in two or more repositories")
    assert client.index() == [
        {"name": "a"},
        {"name": "b", "version": "1", "state": "READY"},
        {"name": "b", "version": "2", "state": "READY"},
        {"name": "c", "state": "UNAVAILABLE", "reason": "model appears in two or more repositories"},
        {"name": "d", "state": "UNAVAILABLE", "reason": "model appears in two or more repositories"},
    ]
    assert [row["version"] for row in client.index(ready=True)] == ["1", "2"]


def test_a_name_in_several_namespaces_means_all_of_them() -> None:
    client = Client("explicit", description("other"))
    client.found(RepositoryListed(("/one::a", "/two::a", "other"), {}))
    number = client.load("a")
    for name in ("/one::a", "/two::a"):
        client.found(ModelDescribed(description(name).to_wire()))
    client.found(ModelConsidered("a", ""))
    one, two = [worker for worker in client.world.workers if not worker.is_loaded]
    client.world.boot(one)
    assert number not in client.answers
    client.world.boot(two)
    assert client.said(number) == (ErrorCode.OK, "")
    client.unload("a")
    client.world.settle()
    forgotten = [message.model for message in client.told if isinstance(message, ForgetModel)]
    assert sorted(forgotten) == ["/one::a", "/two::a", "a"]
    assert [row.get("reason", row["state"]) for row in client.index()] == ["unloaded", "unloaded", "READY"]


def revived(client: Client) -> WatchRepository:
    """The repository process dies and is started again: what the new one is told first."""
    client.world.bury(client.repository)
    client.world.advance(1.0)
    (client.repository,) = client.world.of("repository")
    client.told.clear()
    client.world.boot(client.repository)
    first = client.told[0]
    assert isinstance(first, WatchRepository)
    return first


def test_a_new_repository_process_is_told_what_clients_have_loaded_and_unloaded() -> None:
    client = Client("explicit", description("a"), description("b"))
    client.world.reject("wrong", "config.pbtxt:1:1: nonsense")
    for name, config in (("c", ""), ("d", "{}"), ("e", "{}"), ("e", ""), ("f", "{}")):
        client.load(name, config)
        client.describe(description(name))
    client.load("g")  # it dies before it has looked
    client.unload("a")
    client.unload("f")
    client.load("b", "{}")
    client.found(ModelConsidered("b", "there is no such version"))
    told = revived(client)
    assert not told.is_first
    assert sorted(told.models) == ["b", "c", "e", "wrong"]
    assert told.overridden == ("d",)


def test_one_that_died_before_it_had_seen_everything_begins_anew() -> None:
    world = World(model_control_mode="explicit")
    (repository,) = world.of("repository")
    world.greet(repository)
    world.describe(description("a"))
    world.bury(repository)
    world.advance(1.0)
    (repository,) = world.of("repository")
    world.greet(repository)
    told = repository.inbox[0]
    assert isinstance(told, WatchRepository)
    assert told.is_first


def test_files_that_serve_no_more_are_let_go_when_there_is_a_repository_process_again() -> None:
    client = Client("explicit", description("a", path="/brought/a"))
    client.world.bury(client.repository)
    client.unload("a")
    (worker,) = client.world.workers
    client.world.hear(worker)
    client.world.bury(worker)
    client.world.advance(1.0)
    (client.repository,) = client.world.of("repository")
    client.world.boot(client.repository)
    assert PathUnused("/brought/a") in client.told


def test_loads_leave_nothing_behind() -> None:
    client = Client()
    for number in range(5):
        client.load(f"m{number}")
        client.load(f"m{number}", "nonsense")
        client.describe(description(f"m{number}"))
        client.found(ModelConsidered(f"m{number}", "nonsense"))
    client.found(ModelConsidered("m0", ""), ModelConsidered("never asked for", ""))
    assert client.world.core.control._considered == {}


# ----------------------------------------------------------------------------------------------- archives


def bring(client: Client, model: str, archive: str) -> int:
    return client.ask(LoadModel, model, "", {}, archive)


def test_only_the_platform_brings_archives() -> None:
    client = Client()
    bring(client, "a", "/archives/a")
    assert client.world.of("http")[0].is_doomed, "it may have been taken over"
    assert client.told == []


def test_an_archive_is_loaded_once_and_listed_while_it_is_served() -> None:
    client = Client("explicit", description("b"), role="sagemaker")
    number = bring(client, "a", "/archives/a")
    assert client.told == [DescribeModel("a", "", {}, "/archives/a")]
    assert client.archives() == {}
    for model, archive in (("a", "/archives/other"), ("other", "/archives/a"), ("b", "/archives/b")):
        code, text = client.said(bring(client, model, archive))
        assert code == ErrorCode.ALREADY_EXISTS
        assert "already been" in text
    client.describe(description("a"))
    client.boot()
    assert client.said(number) == (ErrorCode.OK, "")
    assert client.archives() == {"a": "/archives/a"}
    client.unload("a")
    assert client.archives() == {}
    assert bring(client, "a", "/archives/a") not in client.answers


def test_an_archive_that_cannot_be_loaded_is_forgotten() -> None:
    client = Client(role="sagemaker")
    number = bring(client, "a", "/archives/a")
    client.describe(description("a"))
    client.boot("no memory")
    assert client.said(number)[0] == ErrorCode.INVALID_ARG
    client.world.settle()
    assert client.archives() == {}
    assert client.world.core.is_ready
    number = bring(client, "a", "/archives/a")
    client.found(ModelConsidered("a", "nothing there"))
    assert client.said(number)[0] == ErrorCode.INTERNAL
    assert client.archives() == {}


def test_a_new_repository_process_leaves_models_out_of_archives_alone() -> None:
    client = Client("explicit", description("b"), role="sagemaker")
    bring(client, "a", "/archives/a")
    client.describe(description("a"))
    client.boot()
    told = revived(client)
    assert (told.models, told.overridden) == (("b",), ("a",))
