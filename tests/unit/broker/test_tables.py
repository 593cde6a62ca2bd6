"""The tables that people read."""

from broker import tables
from broker.models import Instance, InstanceState, Model, Version, VersionState
from configs.description import Instance as InstanceSpec
from tests.unit.broker.describe import description, instances


def test_cells_line_up_and_long_ones_are_wrapped() -> None:
    text = tables.table(("Model", "Status"), [("a", "READY"), ("longer", "x" * 150), ("b", "one\n\ntwo"), ("c", "")])
    assert text == (
        "+--------+" + "-" * 102 + "+\n"
        "| Model  | Status" + " " * 95 + "|\n"
        "+--------+" + "-" * 102 + "+\n"
        "| a      | READY" + " " * 96 + "|\n"
        "| longer | " + "x" * 100 + " |\n"
        "|        | " + "x" * 50 + " " * 51 + "|\n"
        "| b      | one" + " " * 98 + "|\n"
        "|        | two" + " " * 98 + "|\n"
        "| c      | " + " " * 101 + "|\n"
        "+--------+" + "-" * 102 + "+\n"
    )
    assert tables.table(("Model",), []) == "+-------+\n| Model |\n+-------+\n+-------+\n"


def found() -> dict[str, Model]:
    version = Version.create(description("m"), 1)
    kinds = (("KIND_CPU", ""), ("KIND_GPU", "1"), ("KIND_MODEL", ""))
    specs = [InstanceSpec(f"m_0_{n}", kind, device, device, "") for n, (kind, device) in enumerate(kinds)]
    version.instances = [Instance(spec, version, InstanceState.LOADING, phase="load") for spec in specs]
    version.instances[0].state, version.instances[0].pid = InstanceState.READY, 4711
    failed = Version.create(description("m"), 2)
    failed.state, failed.reason = VersionState.UNAVAILABLE, "no such file"
    model = Model("m", None, {2: failed, 1: version}, rejected="nonsense")
    return {"m": model, "a": Model("a", rejected="there is no directory 'a'")}


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


def test_models_and_why_they_do_not_serve() -> None:
    assert rows(tables.models(found()))[1:] == [
        ["a", "-", "UNAVAILABLE: there is no directory 'a'"],
        ["m", "1", "LOADING"],
        ["m", "2", "UNAVAILABLE: no such file"],
        ["m", "-", "not applied: nonsense"],
    ]


def test_instances_and_their_devices() -> None:
    assert rows(tables.instances(found()))[1:] == [
        ["m", "1", "m_0_0", "4711", "CPU", "ready"],
        ["m", "1", "m_0_1", "-", "GPU 1", "loading"],
        ["m", "1", "m_0_2", "-", "model", "loading"],
    ]


def test_options() -> None:
    assert rows(tables.options({"http": "0.0.0.0:8000", "id": 7})) == [
        ["Option", "Value"],
        ["http", "0.0.0.0:8000"],
        ["id", "7"],
    ]


def test_progress_names_a_few() -> None:
    assert tables.progress(found()) == "loading: 1 of 2 model versions done, loading m_0_1 (load), m_0_2 (load)"
    many = found()
    version = many["m"].versions[1]
    version.instances = [Instance(spec, version, InstanceState.STARTING) for spec in instances("m", 9)]
    assert tables.progress(many).endswith("loading m_0_0 (start), m_0_1 (start), m_0_2 (start), m_0_3 (start), ...")
    assert tables.progress({}) == "loading: 0 of 0 model versions done"
