"""Models of the same name in several repositories, where these are namespaces."""

from pathlib import Path

from configs.layout import list_models
from configs.model import describe
from configs.namespaces import ambiguity, bare_name
from configs.server import ServerConfig


def test_only_names_in_several_repositories_become_identifiers(tmp_path: Path) -> None:
    for path in ("one/m/1", "two/m/1", "two/n/1"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path).with_name("config.pbtxt").write_text('backend: "identity"')
    one, two = tmp_path / "one", tmp_path / "two"
    models = list_models([one, two], {}, with_namespaces=True)
    assert models.directories == {f"{one}::m": one / "m", f"{two}::m": two / "m", "n": two / "n"}
    assert models.errors == {}
    config = ServerConfig(model_repository=(one, two), model_namespacing=True)
    described = {name: describe(path, None, config, (), name=name) for name, path in models.directories.items()}
    assert {name: d.name for name, d in described.items()} == {name: name for name in described}
    assert described[f"{two}::m"].config["name"] == "m"
    assert described[f"{two}::m"].namespace == described["n"].namespace == str(two)
    assert describe(two / "n", None, ServerConfig(), ()).namespace == ""


def test_a_bare_name_is_ambiguous() -> None:
    models = ["/one::m", "/two::m", "n"]
    assert ambiguity("m", models) == (
        "There are 2 identifiers of model 'm' in global map, model namespace must be provided to resolve ambiguity."
    )
    assert ambiguity("n", models) == ambiguity("x", models) == ambiguity("/one::m", models) == ""
    assert [bare_name(name) for name in (*models, "a::b")] == ["m", "m", "n", "a::b"]
