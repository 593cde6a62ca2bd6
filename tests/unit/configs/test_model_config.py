"""One model's configuration: merged, completed, checked and reported as Triton reports it."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import text_format
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from configs import pbtxt
from configs.description import DynamicBatching, ModelDescription, TensorSpec
from configs.errors import ConfigError
from configs.metrics_config import buckets
from configs.model import describe
from configs.proto.schema import message
from configs.server import ServerConfig, load
from configs.tree import Node, merge
from tests.unit.configs.generated_configs import messages

RECORDED = Path(__file__).parent / "recorded"
INPUT = 'input { name: "I" data_type: TYPE_FP32 dims: [ 4 ] }'
OUTPUT = 'output { name: "O" data_type: TYPE_FP32 dims: [ 4 ] }'

Describe = Callable[..., ModelDescription]


def entry(text: str) -> Node:
    """An entry of model_config_list."""
    return pbtxt.parse(text, message("inference.ModelConfig"), "server.pbtxt")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    def make_(text: str | None, files: Sequence[str] = ("1/model.py",), name: str = "m") -> Path:
        directory = tmp_path / name
        for file in files:
            (directory / file).parent.mkdir(parents=True, exist_ok=True)
            (directory / file).touch()
        directory.mkdir(exist_ok=True)
        if text is not None:
            (directory / "config.pbtxt").write_text(text)
        return directory

    return make_


@pytest.fixture
def described(make: Callable[..., Path]) -> Describe:
    def described_(
        text: str | None,
        over: str | None = None,
        *,
        files: Sequence[str] = ("1/model.py",),
        name: str = "m",
        gpus: Sequence[str] = (),
        server: ServerConfig | None = None,
    ) -> ModelDescription:
        return describe(make(text, files, name), entry(over) if over else None, server or ServerConfig(), gpus)

    return described_


def lines_of(described: Describe, text: str | None, *args: object, **options: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        described(text, *args, **options)
    return caught.value.messages


# --- the reported configuration, against recordings of a real Triton


@pytest.mark.parametrize("name", ["bare", "full", "batching"])
def test_the_reported_configuration_is_tritons_member_by_member(
    described: Describe, make: Callable[..., Path], name: str
) -> None:
    recorded = json.loads((RECORDED / f"{name}.json").read_text())
    file = RECORDED / f"{name}.pbtxt"
    text = file.read_text() if file.exists() else None
    config = described(text, files=("1/model.py", "3/model.py", "labels.txt"), name=name).config
    assert config == recorded
    assert in_order(config) == in_order(recorded)


def in_order(value: object, key: str = "") -> object:
    """The members with their order, but for maps, whose order means nothing."""
    if isinstance(value, dict):
        members = [(name, in_order(item, name)) for name, item in value.items()]
        return sorted(members) if key in ("parameters", "metric_tags") else members
    return [in_order(item) for item in value] if isinstance(value, list) else value


# --- merging


def test_the_entry_wins_field_by_field_as_they_stand_in_the_text(described: Describe) -> None:
    own = """max_batch_size: 8 backend: "python"
        input { name: "A" data_type: TYPE_FP32 dims: 1 } input { name: "B" data_type: TYPE_FP32 dims: 1 }
        parameters { key: "a" value { string_value: "1" } } dynamic_batching { preserve_ordering: true }"""
    over = """max_batch_size: 0
        input { name: "C" data_type: TYPE_INT8 dims: 2 } parameters { key: "b" value { string_value: "2" } }"""
    model = described(own, over)
    assert model.max_batch_size == 0
    assert [spec.name for spec in model.inputs] == ["C"]
    assert model.parameters == {"b": "2"}
    assert model.dynamic_batching == DynamicBatching((1,), preserve_ordering=True)
    replaced = described(own, "dynamic_batching { max_queue_delay_microseconds: 500 }")
    assert replaced.dynamic_batching == DynamicBatching((8,), max_queue_delay=0.0005, preserve_ordering=False)


def test_an_entry_alone_configures_a_model(described: Describe) -> None:
    over = 'name: "m" platform: "pytorch" max_batch_size: 16 instance_group: [ { count: 2 kind: KIND_CPU } ]'
    model = described(None, over, files=("1/model.pt",))
    assert (model.backend, model.platform, model.max_batch_size) == ("pytorch", "pytorch_libtorch", 16)
    assert model.config["platform"] == "pytorch_libtorch"
    assert [instance.name for instance in model.instances] == ["m_0_0", "m_0_1"]
    assert (model.inputs, model.outputs) == ((), ())


def test_a_scheduling_choice_of_the_entry_replaces_the_models_own(described: Describe) -> None:
    model = described("max_batch_size: 4 sequence_batching { }", "dynamic_batching { }")
    assert model.dynamic_batching == DynamicBatching((4,))


def test_a_named_configuration_is_read_where_there_is_one(described: Describe, make: Callable[..., Path]) -> None:
    directory = make("max_batch_size: 1")
    (directory / "configs").mkdir()
    (directory / "configs/big.pbtxt").write_text("max_batch_size: 64")
    server = ServerConfig(model_config_name="big")
    assert describe(directory, None, server, ()).max_batch_size == 64
    assert described("max_batch_size: 1", name="other", server=server).max_batch_size == 1


def test_the_name_has_to_be_the_directorys(described: Describe) -> None:
    (line,) = lines_of(described, 'name: "other"')
    assert line.endswith(
        "config.pbtxt:1:1: unexpected directory name 'm' for model 'other', directory name must equal model name"
    )


def test_without_completion_a_configuration_is_needed(described: Describe) -> None:
    server = ServerConfig(disable_auto_complete_config=True)
    assert lines_of(described, None, server=server) == ("model configuration is not provided for model 'm'",)
    assert described(None, 'backend: "python"', server=server).backend == "python"


# --- backend, platform, file


@pytest.mark.parametrize(
    ("text", "files", "expected"),
    [
        (None, ["1/model.py"], ("", "python", "model.py")),
        (None, ["1/model.pt"], ("pytorch_libtorch", "pytorch", "model.pt")),
        (None, ["1/model.onnx"], ("onnxruntime_onnx", "onnxruntime", "model.onnx")),
        (None, ["1/model.onnx/model.onnx"], ("onnxruntime_onnx", "onnxruntime", "model.onnx")),
        (None, ["1/model.onnx", "1/model.py", "1/model.pt"], ("onnxruntime_onnx", "onnxruntime", "model.onnx")),
        (None, ["1/model.xml", "1/model.bin"], ("", "openvino", "model.xml")),
        (None, ["1/model.graphdef"], ("tensorflow_graphdef", "tensorflow", "model.graphdef")),
        (
            'backend: "tensorflow"',
            ["1/model.savedmodel/x"],
            ("tensorflow_savedmodel", "tensorflow", "model.savedmodel"),
        ),
        ('backend: "openvino" default_model_filename: "model.onnx"', ["1/model.onnx"], ("", "openvino", "model.onnx")),
        (None, ["10/model.py", "2/model.pt"], ("", "python", "model.py")),  # the first in the order of letters
        ('platform: "pytorch"', ["1/x"], ("pytorch_libtorch", "pytorch", "model.pt")),
        ('platform: "pytorch_libtorch"', ["1/x"], ("pytorch_libtorch", "pytorch", "model.pt")),
        ('platform: "onnxruntime_onnx"', ["1/x"], ("onnxruntime_onnx", "onnxruntime", "model.onnx")),
        ('backend: "pytorch" platform: "pytorch"', ["1/x"], ("pytorch_libtorch", "pytorch", "model.pt")),
        ('backend: "pytorch"', ["1/x"], ("pytorch_libtorch", "pytorch", "model.pt")),
        ('backend: "onnxruntime"', ["1/x"], ("onnxruntime_onnx", "onnxruntime", "model.onnx")),
        ('backend: "python" platform: "mine"', ["1/x"], ("mine", "python", "model.py")),
        ('backend: "identity"', ["1/x"], ("", "identity", "")),
        ('backend: "pytorch" default_model_filename: "net.pt"', ["1/x"], ("pytorch_libtorch", "pytorch", "net.pt")),
        ('default_model_filename: "model.py"', ["1/x"], ("", "python", "model.py")),
        (None, ["1/model.pt2"], ("torch_aoti", "pytorch", "model.pt2")),
        (None, ["1/model.pt", "1/model.pt2"], ("pytorch_libtorch", "pytorch", "model.pt")),
        ('backend: "pytorch"', ["1/model.pt2"], ("torch_aoti", "pytorch", "model.pt2")),
        ('platform: "pytorch"', ["1/model.pt2"], ("torch_aoti", "pytorch", "model.pt2")),
        ('platform: "pytorch"', ["1/model.pt"], ("pytorch_libtorch", "pytorch", "model.pt")),
        ('platform: "torch_aoti"', ["1/x"], ("torch_aoti", "pytorch", "model.pt2")),
        ('backend: "pytorch" runtime: "model.py"', ["1/model.py"], ("pytorch_libtorch", "pytorch", "")),
        (
            'backend: "pytorch" runtime: "model.py" default_model_filename: "net.py"',
            ["1/net.py"],
            ("pytorch_libtorch", "pytorch", "net.py"),
        ),
    ],
)
def test_backend_platform_and_file_are_completed(
    described: Describe, text: str | None, files: list[str], expected: tuple[str, str, str]
) -> None:
    model = described(text, files=files)
    assert (model.platform, model.backend, model.config["default_model_filename"]) == expected


def test_the_name_of_the_model_can_name_its_backend(described: Describe) -> None:
    model = described(None, files=["1/x"], name="echo.identity")
    assert (model.backend, model.config["default_model_filename"]) == ("identity", "model.identity")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            None,
            "Invalid model name: Could not determine backend for model 'm' with no backend in model configuration. "
            "Expected model name of the form 'model.<backend_name>'.",
        ),
        ('platform: "pytroch"', "1:1: unexpected platform type 'pytroch' for m; did you mean 'pytorch'?"),
        (
            'backend: "pytorch" platform: "onnxruntime_onnx"',
            "1:20: unexpected 'platform' and 'backend' pair, got:onnxruntime_onnx, pytorch",
        ),
        (
            '\nbackend: "onnx"',
            "2:1: unable to find backend library for backend 'onnx', try specifying runtime on the model "
            "configuration. Backends here are identity, onnxruntime, openvino, python, pytorch, repeat, sequence, "
            "square, tensorflow, tensorrt",
        ),
        (
            'backend: "dali"',
            "1:1: unable to find backend library for backend 'dali', try specifying runtime on the model ",
        ),
    ],
)
def test_a_backend_that_cannot_be_told_or_is_not_there(described: Describe, text: str | None, expected: str) -> None:
    (line,) = lines_of(described, text, files=["1/x"])
    assert expected in line


# --- tensors


def test_tensors_are_described_by_their_v2_names(described: Describe) -> None:
    model = described(
        """max_batch_size: 2
        input { name: "I" data_type: TYPE_STRING dims: [ 1 ] reshape { shape: [ ] } optional: true }
        output { name: "O" data_type: TYPE_BF16 dims: [ -1, 3 ] }"""
    )
    assert model.inputs == (TensorSpec("I", "BYTES", (1,), (), optional=True),)
    assert model.outputs == (TensorSpec("O", "BF16", (-1, 3)),)


LABELLED = 'output { name: "O" data_type: TYPE_FP32 dims: [ 3 ] label_filename: "labels.txt" }'


def test_labels_are_the_lines_of_a_file(make: Callable[..., Path]) -> None:
    directory = make(LABELLED)
    for text, labels in (
        (b"", ("",)),
        (b"cat\ndog\n", ("cat", "dog")),
        (b"cat\r\n\r\nd\xc3\xb6g", ("cat", "", "dög")),
        (b"\xff\n", ("\ufffd",)),
    ):
        (directory / "labels.txt").write_bytes(text)
        model = describe(directory, None, ServerConfig(), ())
        assert model.outputs[0].labels == labels
        assert ModelDescription.from_wire(model.to_wire()) == model


def test_a_label_file_has_to_be_there(described: Describe) -> None:
    (line,) = lines_of(described, LABELLED)
    assert line.endswith("/m/labels.txt: cannot be read: No such file or directory")


VARIABLE = "must be integer >= 1, or -1 to indicate a variable-size dimension for m"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_batch_size: -1", "1:1: 'max_batch_size' must be non-negative value for m"),
        ("input { data_type: TYPE_FP32 dims: 1 }", "1:7: model input must specify 'name' for m"),
        ('input { name: "I" dims: 1 }', "1:7: model input 'I' must specify 'data_type' for m"),
        ('input { name: "I" data_type: TYPE_FP32 }', "1:7: model input 'I' must specify 'dims' for m"),
        ('output { name: "O" data_type: TYPE_FP32 dims: [ ] }', "1:41: model output 'O' must specify 'dims' for m"),
        ('input { name: "I" data_type: TYPE_FP32 dims: 0 }', f"1:40: model input 'I' dimension {VARIABLE}"),
        ('input { name: "I" data_type: TYPE_FP32 dims: -2 }', f"1:40: model input 'I' dimension {VARIABLE}"),
        (
            'input { name: "I" data_type: TYPE_FP32 dims: 1 reshape { shape: 0 } }',
            f"1:48: model input 'I' reshape dimensions {VARIABLE}",
        ),
        (
            'input { name: "I" data_type: TYPE_FP32 dims: 1 reshape { } }',
            "model input 'I' cannot have empty reshape for non-batching model as scalar tensors are not supported",
        ),
        (
            'input { name: "I" data_type: TYPE_FP32 dims: 6 reshape { shape: [ 2, 4 ] } }',
            "model input 'I' has different size for dims and reshape for m",
        ),
        (
            'max_batch_size: 1 input { name: "I" data_type: TYPE_FP32 dims: 2 reshape { } }',
            "model input 'I' has different size for dims and reshape for m",
        ),
        (
            'input { name: "I" data_type: TYPE_FP32 dims: [ -1, 2 ] reshape { shape: [ 2 ] } }',
            "model input 'I' has different number of variable-size dimensions for dims and reshape for m",
        ),
        (
            'input { name: "I" data_type: TYPE_FP32 dims: [ 2, -1, 3 ] reshape { shape: [ 3, -1, 2 ] } }',
            "model input 'I' has different size for dims and reshape for m",
        ),
        (
            'input { name: "I" data_type: TYPE_FP32 dims: [ 2, 2 ] format: FORMAT_NHWC }',
            "1:40: model input NHWC/NCHW require 3 dims for m",
        ),
        (
            'output { name: "O" data_type: TYPE_FP32 dims: 1 is_shape_tensor: true }',
            "shape tensors are only supported for TensorRT platform for m",
        ),
        (
            'input { name: "I" data_type: TYPE_FP32 dims: 1 is_non_linear_format_io: true }',
            "Non-linear IO format is only supported for the TensorRT platform for m",
        ),
        (
            "max_batch_size: 4 dynamic_batching { preferred_batch_size: [ 2, 8 ] }",
            "1:38: dynamic batching preferred size must be <= max batch size for m",
        ),
        (
            "max_batch_size: 4 dynamic_batching { preferred_batch_size: 0 }",
            "1:38: dynamic batching preferred size must be positive for m",
        ),
        (
            "batch_input { data_type: TYPE_FP32 }",
            "batch input kind 'BATCH_ELEMENT_COUNT' expects 1 source input, got 0 for m",
        ),
        (
            f'{INPUT} batch_input {{ kind: BATCH_ITEM_SHAPE data_type: TYPE_INT32 source_input: [ "I", "I" ] }}',
            "batch input kind 'BATCH_ITEM_SHAPE' expects 1 source input, got 2 for m",
        ),
        (
            f'{INPUT} batch_input {{ data_type: TYPE_INT64 source_input: "I" }}',
            "batch input data type must be TYPE_INT32 or TYPE_FP32 for m",
        ),
        ('batch_input { data_type: TYPE_INT32 source_input: "X" }', "unknown source input name 'X' for m"),
        (
            f'{INPUT} batch_output {{ target_name: "X" source_input: "I" }}',
            "unknown target output name 'X' for m",
        ),
        (
            f'{INPUT} {OUTPUT} batch_output {{ target_name: [ "O", "O" ] source_input: "I" }}',
            "target output name 'O' can only be specified once for m",
        ),
        (
            f'{OUTPUT} batch_output {{ target_name: "O" }}',
            "batch output kind 'BATCH_SCATTER_WITH_INPUT_SHAPE' expects 1 source input, got 0 for m",
        ),
        (f'{INPUT} batch_output {{ source_input: "I" }}', "batch output must specify 'target_name' for m"),
        (
            'backend: "python" default_model_filename: "../../secret.py"',
            "1:19: 'default_model_filename' must be a path inside the version directory, got '../../secret.py'",
        ),
        (
            'output { name: "O" data_type: TYPE_FP32 dims: 1 label_filename: "../../labels.txt" }',
            "label file path '../../labels.txt' for output 'O' in model 'm' is outside model directory",
        ),
    ],
)
def test_what_is_wrong_has_tritons_words_and_its_place(described: Describe, text: str, expected: str) -> None:
    (line,) = lines_of(described, text)
    assert expected in line
    assert "config.pbtxt:1:" in line


@pytest.mark.parametrize(
    "reshape",
    ["dims: [ 2, 3 ] reshape { shape: [ 6 ] }", "dims: [ 2, -1, 3, 2 ] reshape { shape: [ 2, 1, -1, 6 ] }"],
)
def test_a_reshape_keeps_the_number_of_elements(described: Describe, reshape: str) -> None:
    described(f'input {{ name: "I" data_type: TYPE_FP32 {reshape} }}')


def test_all_problems_of_a_model_are_said_at_once(described: Describe) -> None:
    lines = lines_of(described, f"max_batch_size: -1 input {{ }} {INPUT} instance_group {{ count: -1 }}")
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", False),
        ("model_transaction_policy { }", False),
        ("model_transaction_policy { decoupled: false }", False),
        ("model_transaction_policy { decoupled: true }", True),
    ],
)
def test_the_transaction_policy(described: Describe, text: str, expected: bool) -> None:
    assert described(text).decoupled is expected


# --- what is not built


@pytest.mark.parametrize(
    "text",
    [
        'model_operations { op_library_filename: "libx.so" }',
        'runtime: "other.py"',
        "instance_group { passive: true }",
        "instance_group { secondary_devices { } }",
    ],
)
def test_what_is_not_built_is_refused_by_name_where_it_would_change_answers(described: Describe, text: str) -> None:
    (line,) = lines_of(described, text)
    name = line.split("'")[1]
    assert name.split(":")[0] in text
    assert line.endswith("of model 'm' is not built yet, and is refused because ignoring it would change answers")


@pytest.mark.parametrize(
    "text",
    [
        "model_transaction_policy { decoupled: false }",
        "response_cache { enable: false }",
        "max_batch_size: 1 dynamic_batching { default_queue_policy { } }",
        'backend: "python" runtime: "libtriton_python.so"',
        'cc_model_filenames { key: "7.5" value: "x.pt" } instance_group { kind: KIND_CPU }',
    ],
)
def test_what_asks_for_nothing_unbuilt_is_accepted(described: Describe, text: str) -> None:
    assert described(text).warnings == ()


def test_files_by_compute_capability_are_refused_on_a_gpu(described: Describe) -> None:
    text = 'cc_model_filenames { key: "7.5" value: "x.pt" } instance_group { kind: KIND_GPU }'
    (line,) = lines_of(described, text, gpus=["0"])
    assert "'cc_model_filenames' of model 'm' is not built yet" in line


@pytest.mark.parametrize(
    "text",
    [
        "optimization { priority: PRIORITY_MAX }",
        'instance_group { host_policy: "p" }',
    ],
)
def test_hints_are_warned_about(described: Describe, text: str) -> None:
    (line,) = described(text).warnings
    assert line.endswith("of model 'm' has no effect here")
    assert line.split("'")[1] in text


def test_what_onnx_runtime_uses_of_optimization_is_no_hint(described: Describe) -> None:
    used = "graph { level: 1 } execution_accelerators { cpu_execution_accelerator { name: 'openvino' } }"
    assert described(f'backend: "onnxruntime" optimization {{ {used} }}').warnings == ()
    (line,) = described(f'backend: "onnxruntime" optimization {{ priority: PRIORITY_MAX {used} }}').warnings
    assert line.endswith("'priority' of model 'm' has no effect here")


# --- versions


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("", (10,)),
        ("version_policy { latest { num_versions: 2 } }", (2, 10)),
        ("version_policy { latest { num_versions: 9 } }", (0, 1, 2, 10)),
        ("version_policy { all { } }", (0, 1, 2, 10)),
        ("version_policy { specific { versions: [ 10, 1 ] } }", (1, 10)),
    ],
)
def test_the_policy_selects_versions(described: Describe, policy: str, expected: tuple[int, ...]) -> None:
    files = [f"{version}/model.py" for version in (10, 2, 1, 0)]
    assert described(policy, files=files).versions == expected


@pytest.mark.parametrize(
    ("policy", "files"),
    [
        ("", []),
        ("version_policy { latest { num_versions: 0 } }", ["1/model.py"]),
        ("version_policy { specific { versions: 7 } }", ["1/model.py"]),
    ],
)
def test_one_version_has_to_be_there(described: Describe, policy: str, files: list[str]) -> None:
    (line,) = lines_of(described, policy + ' backend: "python"', files=files)
    assert line.startswith("at least one version must be available under the version policy of model 'm'")


def test_missing_versions_and_odd_directories_are_warned_about(described: Describe) -> None:
    odd = [
        "1/x",
        "01/x",
        "abc/x",
        "-5/x",
        "7abc/x",
        "99999999999999999999/x",
        "warmup/x",
        "initial_state/x",
        "configs/x",
    ]
    model = described('backend: "python" version_policy { specific { versions: [ 1, 3 ] } }', files=odd)
    assert model.versions == (1,)
    assert sorted(model.warnings) == sorted(
        [
            "ignore version directory '01' which contains leading zeros in its directory name",
            *(
                f"ignore version directory '{name}' which fails to convert to integral number"
                for name in ("-5", "7abc", "99999999999999999999", "abc")
            ),
            "version 3 is specified for model 'm', but the version directory is not present",
        ]
    )


# --- fingerprints and the wire


def test_the_fingerprint_changes_exactly_when_workers_have_to_be_reloaded(described: Describe) -> None:
    base = "max_batch_size: 4 " + INPUT
    fingerprint = described(base).fingerprint
    for scheduling in (
        "instance_group { count: 3 }",
        "dynamic_batching { max_queue_delay_microseconds: 5 }",
        "version_policy { all { } }",
        "response_cache { enable: true }",
        'metric_tags { key: "team" value: "a" }',
        'parameters { key: "execution_timeout_ms" value { string_value: "9" } }',
        'parameters { key: "tenant_key" value { string_value: "who" } }',
        "# a comment",
    ):
        assert described(f"{base} {scheduling}").fingerprint == fingerprint
    for loaded in ('parameters { key: "a" value { } }', 'default_model_filename: "x.py" backend: "python"'):
        assert described(f"{base} {loaded}").fingerprint != fingerprint
    assert described(base, name="other").fingerprint != fingerprint


def test_a_written_file_changes_the_fingerprint_of_its_version_only(make: Callable[..., Path]) -> None:
    directory = make("version_policy { all { } }", ["1/model.py", "2/model.py", "2/sub/weights"])
    before = describe(directory, None, ServerConfig(), ()).version_fingerprints
    (directory / "2/sub/weights").write_text("new")
    after = describe(directory, None, ServerConfig(), ()).version_fingerprints
    assert before.keys() == after.keys() == {1, 2}
    assert before[1] == after[1]
    assert before[2] != after[2]


@pytest.mark.parametrize(
    ("name", "counts"),
    [("warmup/data", True), ("vocabulary.txt", True), (".config.pbtxt.swp", False), ("configs/other.pbtxt", False)],
)
def test_what_versions_share_changes_the_fingerprint_of_all(make: Callable[..., Path], name: str, counts: bool) -> None:
    directory = make("", ["1/model.py"])
    before = describe(directory, None, ServerConfig(), ()).fingerprint
    (directory / name).parent.mkdir(exist_ok=True)
    (directory / name).write_text("new")
    assert (describe(directory, None, ServerConfig(), ()).fingerprint != before) is counts


def test_a_description_survives_the_wire(described: Describe) -> None:
    model = described(f"max_batch_size: 4 {INPUT} dynamic_batching {{ }} version_policy {{ all {{ }} }}")
    assert ModelDescription.from_wire(model.to_wire()) == model
    assert ModelDescription.from_wire(json_like(model.to_wire())) == model


def json_like(value: object) -> dict[str, object]:
    """What a codec without tuples makes of it; version numbers stay integers."""
    if isinstance(value, dict):
        return {key: json_like(item) for key, item in value.items()}
    return [json_like(item) for item in value] if isinstance(value, tuple | list) else value  # type: ignore[return-value]  # leaves


def test_a_model_that_cannot_be_read_is_an_error_of_that_model(make: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        describe(tmp_path / "none", None, ServerConfig(), ())
    directory = make(None)
    os.symlink(directory / "nowhere", directory / "config.pbtxt")
    with pytest.raises(ConfigError, match=r"config\.pbtxt: cannot be read"):
        describe(directory, None, ServerConfig(), ())


def test_what_is_printed_cannot_break_the_line(described: Describe) -> None:
    (line,) = lines_of(described, r'name: "a\nb"')
    assert r"'a\nb'" in line


@given(sent=messages(message("inference.ModelConfig")), is_plain=st.booleans())
def test_any_configuration_is_described_or_refused(
    sent: Message, is_plain: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.getbasetemp() / "generated"
    (directory / "1").mkdir(parents=True, exist_ok=True)
    over = entry(text_format.MessageToString(sent))
    if is_plain:  # likely to be accepted
        kept = ("parameters", "metric_tags", "max_batch_size", "instance_group", "optimization", "version_policy")
        over = merge(replace(over, fields={n: over.fields[n] for n in kept if n in over}), entry('backend: "python"'))
    try:
        model = describe(directory, over, ServerConfig(), ["0", "1"])
    except ConfigError:
        return
    assert ModelDescription.from_wire(model.to_wire()) == model
    assert len(model.instances) >= 1
    assert json.loads(json.dumps(model.config)) == model.config


ROOT = Path(__file__).parents[3]
EXAMPLES = sorted(path for path in (ROOT / "examples/model_repository").iterdir() if path.is_dir())


@pytest.mark.parametrize("directory", EXAMPLES, ids=lambda path: path.name)
def test_the_models_of_the_demonstration_are_described_without_a_warning(directory: Path) -> None:
    server = load([f"--config={ROOT}/configs/server.pbtxt"])
    model = describe(directory, server.entries.get(directory.name), server, ())
    assert model.warnings == ()
    assert len(model.instances) == (2 if directory.name == "digits" else 1)


# --- response cache


@pytest.mark.parametrize(
    ("text", "reason"),
    [("model_transaction_policy { decoupled: true }", "'decoupled' transaction policy")],
)
def test_models_whose_responses_cannot_be_cached(described: Describe, text: str, reason: str) -> None:
    (line,) = lines_of(described, f"{text} response_cache {{ enable: true }}")
    assert line.endswith(
        f": Response Cache does not currently support model m with {reason}. Please disable the response cache."
    )


def test_a_model_that_asks_for_a_cache_that_the_server_lacks_is_warned(described: Describe) -> None:
    text = "response_cache { enable: true }"
    (warning,) = described(text).warnings
    assert warning.endswith(":1:18: 'response_cache' of model 'm' has no effect here: there is no --cache-config")
    assert described(text, server=ServerConfig(cache_config=("local,size=5",))).warnings == ()


def test_an_ensemble_that_asks_for_a_cache_is_warned(described: Describe) -> None:
    maps = 'input_map { key: "I" value: "I" } output_map { key: "O" value: "O" }'
    text = (
        'response_cache { enable: true } platform: "ensemble" input { name: "I" data_type: TYPE_FP32 dims: 4 } '
        'output { name: "O" data_type: TYPE_FP32 dims: 4 } '
        f'ensemble_scheduling {{ step {{ model_name: "x" {maps} }} }}'
    )
    (warning,) = described(text, server=ServerConfig(cache_config=("local,size=5",))).warnings
    assert "has no effect here: only the models of an ensemble can have it" in warning


# --- warm-up


WARMUP = 'model_warmup {{ name: "w" batch_size: 1 inputs {{ key: "I" value {{ {} }} }} }}'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "data_type: TYPE_FP32 dims: [ -1 ] zero_data: true",
            "warmup setting expects all variable-size dimensions are specified for input 'I'",
        ),
        ("data_type: TYPE_FP32 dims: [ 4 ]", "warmup setting expects input 'I' to have input_data_type set"),
        ("dims: [ 4 ] zero_data: true", "warmup setting expects input 'I' to have data_type set"),
        (
            'data_type: TYPE_FP32 dims: [ 4 ] input_data_file: "../../x"',
            "input_data_file '../../x' of input 'I' is outside model directory",
        ),
    ],
)
def test_what_is_wrong_with_a_warm_up(described: Describe, text: str, problem: str) -> None:
    (line,) = lines_of(described, WARMUP.format(text))
    assert line.endswith(f": {problem} (warmup sample 'w')")
    assert "config.pbtxt:1:" in line


def test_a_warm_up_is_reported_as_it_stands(described: Describe) -> None:
    found = described(f"{WARMUP.format('data_type: TYPE_FP32 dims: [ 4 ] random_data: true')} {INPUT}")
    (sample,) = found.config["model_warmup"]
    given = {"data_type": "TYPE_FP32", "dims": [4], "random_data": True}
    assert sample == {"name": "w", "batch_size": 1, "inputs": {"I": given}, "count": 0}


# --- metrics


def test_buckets_of_histograms_have_to_ascend(described: Describe) -> None:
    family = 'metric_identifier { family: "nv_inference_first_response_histogram_ms" }'
    good = f"model_metrics {{ metric_control {{ {family} histogram_options {{ buckets: [ 0.5, 1, 20 ] }} }} }}"
    config = described(good).config
    assert buckets(config) == {"nv_inference_first_response_histogram_ms": (0.5, 1.0, 20.0)}
    for text in (good.replace("20", "1"), good.replace("20", "nan")):
        (line,) = lines_of(described, text)
        assert line.endswith("'buckets' of 'model_metrics' must ascend for m")
    assert buckets(described("model_metrics { metric_control { } }").config) == buckets(described("").config) == {}
