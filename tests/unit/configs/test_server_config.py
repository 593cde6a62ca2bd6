"""The server's settings: flags, server.pbtxt, defaults, and what is refused or warned about."""

import dataclasses
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from configs import trace
from configs.errors import ConfigError
from configs.foreign import FOREIGN, Foreign
from configs.options import Option, flag_of
from configs.proto.schema import message
from configs.server import ServerConfig, load, reload_entries
from configs.settings import OPTIONS, SETTINGS, help_text
from configs.trace import TraceConfig

EXAMPLES = sorted((Path(__file__).parents[3] / "configs").glob("**/*.pbtxt"))
GPU_EXAMPLE = Path(__file__).parents[3] / "configs/examples/gpu.pbtxt"
FILE_ONLY = {"model_config_list"}

TRITON_FLAGS = (Path(__file__).parent / "recorded/tritonserver-2.51-flags.txt").read_text().split()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    directory = tmp_path / "model_repository"
    directory.mkdir()
    return directory


@pytest.fixture
def load_text(tmp_path: Path, repository: Path) -> Callable[..., ServerConfig]:
    def load_(text: str, *flags: str) -> ServerConfig:
        path = tmp_path / "server.pbtxt"
        path.write_text(text)
        return load([f"--config={path}", *flags])

    return load_


def lines_of(call: Callable[[], object]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        call()
    assert all(len(line.splitlines()) == 1 for line in caught.value.messages)
    return caught.value.messages


# --- the table of options against everything that is derived from it


def test_every_field_of_the_file_is_an_option_and_the_other_way_round() -> None:
    in_file = {name for option in OPTIONS if option.in_file for name in (option.name, *option.aliases)}
    assert set(message("tidepool.ServerConfig").fields_by_name) == in_file | FILE_ONLY


@pytest.mark.parametrize("option", [o for o in OPTIONS if o.in_file], ids=lambda o: o.name)
def test_a_field_of_the_file_has_the_kind_of_its_option(option: Option) -> None:
    if option.name == "backend_config":
        return  # structured in the file
    for name in (option.name, *option.aliases):
        field = message("tidepool.ServerConfig").fields_by_name[name]
        kinds = {
            field.CPPTYPE_BOOL: bool,
            field.CPPTYPE_INT32: int,
            field.CPPTYPE_INT64: int,
            field.CPPTYPE_DOUBLE: float,
            field.CPPTYPE_STRING: str,
        }
        assert (kinds[field.cpp_type], field.is_repeated) == (option.kind, option.repeated)


def test_every_option_is_declared_once() -> None:
    names = [name for option in OPTIONS for name in (option.name, *option.aliases)]
    assert len(names) == len(set(names))


def test_every_default_is_allowed() -> None:
    for option in SETTINGS:
        if not option.repeated:
            assert type(option.default) is option.kind
            option.check(option.default)


def test_every_flag_of_tritonserver_is_known() -> None:
    known = {flag_of(name) for option in OPTIONS for name in (option.name, *option.aliases)}
    assert set(TRITON_FLAGS) <= known


def test_help_names_every_flag_and_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert shown == help_text()
    assert all(re.search(rf"^  {option.flag}(=|$| )", shown, re.MULTILINE) for option in OPTIONS)
    assert max(map(len, shown.splitlines())) <= 100


def test_version_prints_and_exits(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load(["--version"])
    assert caught.value.code == 0
    assert re.fullmatch(r"tidepool \d+\.\d+\.\d+\n", capsys.readouterr().out)


# --- flags, file, defaults


def test_without_anything_but_a_repository_the_defaults_are_tritons(repository: Path) -> None:
    config = load([f"--model-repository={repository}"])
    assert config == ServerConfig(model_repository=(repository,), metrics_address="0.0.0.0")
    assert (config.http_port, config.grpc_port, config.metrics_port) == (8000, 8001, 8002)
    assert (config.id, config.exit_timeout_secs, config.repository_poll_secs) == ("triton", 30, 15)
    assert config.shm("python") == (64 << 20, 64 << 20, 0)


def test_a_flag_wins_over_the_file_and_the_file_over_the_default(load_text: Callable[..., ServerConfig]) -> None:
    config = load_text("http_port: 9000 grpc_port: 9001 log_verbose: 2", "--http-port", "9100", "--log-verbose=true")
    assert (config.http_port, config.grpc_port, config.metrics_port, config.log_verbose) == (9100, 9001, 8002, 1)


def test_a_value_of_the_file_that_equals_zero_is_not_taken_for_missing(load_text: Callable[..., ServerConfig]) -> None:
    config = load_text("http_port: 0 allow_grpc: false exit_timeout_secs: 0")
    assert (config.http_port, config.allow_grpc, config.exit_timeout_secs) == (0, False, 0)


@pytest.mark.parametrize(
    ("word", "value"), [("true", True), ("ON", True), ("1", True), ("False", False), ("off", False), ("0", False)]
)
def test_booleans_have_tritons_spellings(repository: Path, word: str, value: bool) -> None:
    assert load([f"--model-repository={repository}", f"--allow-http={word}"]).allow_http is value


def test_auto_completion_is_switched_off_by_either_name(repository: Path) -> None:
    base = f"--model-repository={repository}"
    assert load([base, "--disable-auto-complete-config"]).disable_auto_complete_config
    assert load(["--disable-auto-complete-config", base]).disable_auto_complete_config  # takes no value
    strict = load([base, "--strict-model-config=true"])
    assert strict.disable_auto_complete_config
    assert strict.warnings == ("--strict-model-config is deprecated, use disable_auto_complete_config",)


def test_metrics_are_served_on_the_http_address_unless_told_otherwise(repository: Path) -> None:
    base = [f"--model-repository={repository}", "--http-address=127.0.0.1"]
    assert load(base).metrics_address == "127.0.0.1"
    assert load([*base, "--metrics-address=127.0.0.2"]).metrics_address == "127.0.0.2"


# --- the repository


def test_the_repository_flag_repeats_and_wins(load_text: Callable[..., ServerConfig], tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    flags = [f"--model-repository={tmp_path}/a", "--model-store", f"{tmp_path}/b", f"--model-repository={tmp_path}/./a"]
    assert load_text('model_repository: "model_repository"', *flags).model_repository == (
        tmp_path / "a",
        tmp_path / "b",
    )


def test_the_repository_field_is_relative_to_the_file(load_text: Callable[..., ServerConfig], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert load_text('model_repository: "elsewhere"').model_repository == (tmp_path / "elsewhere",)
    assert load_text('model_store: "./elsewhere"').model_repository == (tmp_path / "elsewhere",)


def test_the_default_repository_lies_beside_the_file(
    load_text: Callable[..., ServerConfig], repository: Path, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    assert load_text("").model_repository == (repository,)
    repository.rmdir()
    assert load_text("").model_repository == (tmp_path / "models",)


def test_without_any_repository_the_error_names_every_way(
    load_text: Callable[..., ServerConfig], repository: Path, tmp_path: Path
) -> None:
    repository.rmdir()
    (line,) = lines_of(lambda: load_text(""))
    assert line == (
        "there is no model repository: give --model-repository=PATH or the field model_repository, "
        f"or make {tmp_path}/model_repository or {tmp_path}/models"
    )
    assert lines_of(lambda: load([])) == ("there is no model repository: give --model-repository=PATH",)


def test_a_repository_has_to_be_a_directory(repository: Path) -> None:
    assert lines_of(lambda: load([f"--model-repository={repository}/none"])) == (
        f"--model-repository: '{repository}/none' is not a directory",
    )
    (line,) = lines_of(lambda: load(["--model-repository=s3://"]))
    assert line == ("--model-repository: 's3://': write s3://BUCKET/PATH or s3://[https://]HOST:PORT/BUCKET/PATH")


# --- what is wrong


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--htp-port=1"], "Bad option: \"--htp-port\". did you mean '--http-port'?"),
        (["--zzz"], 'Bad option: "--zzz".'),
        (["stray"], "Unexpected argument: stray"),
        (["--http-port"], "--http-port: a value is missing, write --http-port=VALUE"),
        (["--http-port=many"], "--http-port: Invalid option value. Got many, which is no integer"),
        (["--http-port=70000"], "--http-port: 70000 is not allowed, must be 0 to 65535"),
        (
            ["--rate-limit-resource=R"],
            "rate_limit_resource: --rate-limit-resource option format is '<resource_name>:<count>:<device>' or "
            "'<resource_name>:<count>'. Got R",
        ),
        (["--rate-limit-resource=R:x"], "rate_limit_resource: Invalid option value. Got x"),
        (["--host-policy=p"], "host_policy: --host-policy option format is '<policy name>,<setting>=<value>'. Got p"),
        (["--rate-limit=maybe"], "invalid argument for --rate-limit: 'maybe' is none of off, execution_count"),
        (["--http-max-input-size=0"], "Error: --http-max-input-size must be greater than 0. Got 0"),
        (["--metrics-interval-ms=nan"], "Error: --metrics-interval-ms must be greater than 0. Got nan"),
        (["--metrics-interval-ms=x"], "--metrics-interval-ms: Invalid option value. Got x, which is no number"),
        (["--allow-http=maybe"], "--allow-http: invalid value for bool option: maybe (true, on, 1, false, off or 0"),
        (
            ["--model-control-mode=pol"],
            "invalid argument for --model-control-mode: 'pol' is none of none, poll",
        ),
        (
            ["--model-control-mode=some"],
            "invalid argument for --model-control-mode: 'some' is none of none, poll, explicit",
        ),
        (["--model-config-name="], "Error: empty argument for --model-config-name"),
        (["--load-model=m"], "Error: Use of '--load-model' requires setting '--model-control-mode=explicit' as well."),
        (
            ["--model-control-mode=explicit", "--load-model=*", "--load-model=m"],
            "Wildcard model name '*' must be the ONLY startup model if specified at all.",
        ),
        (
            ["--model-load-gpu-limit=0:0.5"],
            "--model-load-gpu-limit is refused: Limits of GPU memory are not built yet.",
        ),
        (["--grpc-server-cert=/nowhere"], "grpc_server_cert: '/nowhere' cannot be read"),
        (["--http-restricted-api=health,nope:k=v"], "http_restricted_api: unknown restricted api 'nope'"),
        (["--grpc-restricted-protocol=health"], "grpc_restricted_protocol: 'health': write <protocol>"),
        (["--http-header-forward-pattern=("], "http_header_forward_pattern: '(' is no regular expression"),
        (["--trace-config=level=TIMESTAMPS"], "trace_config: tracing in mode triton needs a file"),
        (["--trace-config=rate=0"], "trace_config: invalid value for trace rate option: 0"),
        (["--trace-config=triton,depth=1"], "trace_config: 'triton,depth=1': unknown trace setting"),
        (["--backend-config=,a=b"], "No backend specified. --backend-config option format is "),
        (
            ["--backend-config=python,a"],
            "--backend-config option format is '<backend name>,<setting>=<value>'. Got python,a",
        ),
        (
            ["--http-port=1", "--grpc-port=1"],
            "The server cannot listen to HTTP requests and GRPC requests at the same ",
        ),
    ],
)
def test_wrong_flags(repository: Path, flags: list[str], expected: str) -> None:
    (line,) = lines_of(lambda: load([f"--model-repository={repository}", *flags]))
    assert line.startswith(expected)


def test_older_flags_for_traces_still_count(repository: Path) -> None:
    older = ["--trace-file=/tmp/t", "--trace-level=TIMESTAMPS", "--trace-rate=5", "--trace-count=2"]
    config = load([f"--model-repository={repository}", *older, "--trace-log-frequency=1", "--trace-config=rate=7"])
    assert trace.parse(config.trace_config) == TraceConfig(("TIMESTAMPS",), 7, 2, "triton", "/tmp/t", 1)
    assert "--trace-level is deprecated, use --trace-config" in config.warnings


def test_all_problems_are_said_at_once(load_text: Callable[..., ServerConfig]) -> None:
    lines = lines_of(lambda: load_text('http_port: 70000 model_load_gpu_limit: "0:0.5"', "--nope", "--grpc-port=x"))
    assert len(lines) == 4
    assert any(re.search(r"server\.pbtxt:1:1: http_port: 70000 is not allowed", line) for line in lines)


def test_a_misspelt_flag_is_not_said_to_be_missing_too() -> None:
    assert lines_of(lambda: load(["--modl-repository=/m"])) == (
        "Bad option: \"--modl-repository\". did you mean '--model-repository'?",
    )


def test_port_zero_never_collides(repository: Path) -> None:
    load([f"--model-repository={repository}", "--http-port=0", "--grpc-port=0", "--metrics-port=0"])


@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda f: f.option.name)
def test_what_does_nothing_here_says_so_and_harmless_values_pass(
    load_text: Callable[..., ServerConfig], foreign: Foreign
) -> None:
    option = foreign.option
    value = {bool: False in foreign.harmless, int: 7, float: 7.5, str: "x"}[option.kind]
    in_file = f'"{value}"' if option.kind is str else str(value).lower()
    for place, text, flags in (
        (option.name, f"{option.name}: {in_file}", []),
        (option.flag, "", [f"{option.flag}={value}"]),
    ):
        if foreign.refused:
            (line,) = lines_of(partial(load_text, text, *flags))
        else:
            (line,) = load_text(text, *flags).warnings
        assert place in line
        assert line.endswith(option.help)
    for harmless in foreign.harmless:
        assert load_text("", f"{option.flag}={harmless}").warnings == ()


# --- backend_config


@pytest.mark.parametrize("key", ["shm-default-byte-size", "shm-default-size"])
def test_the_default_of_shared_memory_has_two_spellings(repository: Path, key: str) -> None:
    config = load([f"--model-repository={repository}", f"--backend-config=python,{key}=2147483648"])
    assert config.shm("python") == (2147483648, 64 << 20, 0)
    assert config.shm("pytorch") == (64 << 20, 64 << 20, 0)
    assert config.warnings == ()


def test_a_backends_own_settings_win_over_those_for_all_and_flags_over_the_file(
    load_text: Callable[..., ServerConfig],
) -> None:
    config = load_text(
        """
        backend_config { parameters { key: "shm-default-byte-size" value: "2097152" }
                         parameters { key: "shm-growth-byte-size" value: "1048576" } }
        backend_config { backend: "python" parameters { key: "shm-default-size" value: "4194304" }
                         parameters { key: "shm-max-byte-size" value: "8388608" } }
        """,
        "--backend-config=shm-growth-byte-size=3145728",
    )
    assert config.shm("python") == (4194304, 3145728, 8388608)
    assert config.shm("onnxruntime") == (2097152, 3145728, 0)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("python,shm-default-size=4GB", "shm-default-size is '4GB', expected a number of bytes"),
        ("python,shm-default-byte-size=-1", "shm-default-byte-size is '-1', expected a number of bytes"),
        ("shm-growth-byte-size=1000", "shm-growth-byte-size is 1000, must be at least 1048576 (1 MiB)"),
        (
            "python,shm-max-byte-size=1048576",
            "shm-max-byte-size (1048576) is less than shm-default-byte-size (67108864)",
        ),
        ("onnxruntime,default-max-batch-size=all", "onnxruntime,default-max-batch-size is 'all', expected a number"),
    ],
)
def test_sizes_that_make_no_sense_name_key_and_value(repository: Path, setting: str, expected: str) -> None:
    (line,) = lines_of(lambda: load([f"--model-repository={repository}", f"--backend-config={setting}"]))
    assert expected in line
    assert line.startswith("backend_config: ")


def test_the_two_spellings_must_not_disagree(repository: Path) -> None:
    flags = [
        "--backend-config=python,shm-default-size=2097152",
        "--backend-config=python,shm-default-byte-size=4194304",
    ]
    (line,) = lines_of(lambda: load([f"--model-repository={repository}", *flags]))
    assert "shm-default-byte-size '4194304' and shm-default-size '2097152' disagree" in line


def test_unknown_keys_and_backends_are_warned_about(repository: Path) -> None:
    flags = [
        "--backend-config=python,sh-default=1",
        "--backend-config=dali,plugin_libs=x",
        "--backend-config=version=2",
    ]
    assert load([f"--model-repository={repository}", *flags]).warnings == (
        "backend_config: 'dali,plugin_libs' is not known, it has no effect",
        "backend_config: 'python,sh-default' is not known, it has no effect",
        "backend_config: 'version' has no effect here",
        "backend_config: there is no backend 'dali' here",
    )


# --- model_config_list


def test_entries_are_found_in_both_forms_with_their_places(load_text: Callable[..., ServerConfig]) -> None:
    config = load_text(
        'model_config_list: [\n { config: { name: "a" } },\n { config { name: "b" } config { name: "c" } } ]\n'
        'model_config_list { config { name: "d" max_batch_size: 0 } }'
    )
    assert list(config.entries) == ["a", "b", "c", "d"]
    assert str(config.entries["b"].position).endswith("server.pbtxt:3:11")
    assert "max_batch_size" in config.entries["d"]


def test_an_edit_of_the_entries_is_read_again_and_other_fields_need_a_restart(
    load_text: Callable[..., ServerConfig], tmp_path: Path
) -> None:
    entry = 'model_config_list {{ config {{ name: "a" instance_group {{ count: {} }} }} }}'
    config = load_text(entry.format(1) + "http_port: 9000", "--grpc-port=9001")
    (tmp_path / "server.pbtxt").write_text(entry.format(4) + 'http_port: 9009 id: "new"')
    entries, changed = reload_entries(config)
    assert entries["a"].get("instance_group")[0].get("count") == 4
    assert changed == ("http_port", "id")
    assert config.entries["a"].get("instance_group")[0].get("count") == 1


def test_a_broken_edit_raises(load_text: Callable[..., ServerConfig], tmp_path: Path) -> None:
    config = load_text("")
    (tmp_path / "server.pbtxt").write_text("model_config_list {")
    assert "is not closed" in lines_of(lambda: reload_entries(config))[0]
    (tmp_path / "server.pbtxt").write_text('model_config_list { config { name: "a" } config { name: "a" } }')
    assert "'a' is configured twice" in lines_of(lambda: reload_entries(config))[0]


def test_without_a_file_there_is_nothing_to_read_again(repository: Path) -> None:
    assert reload_entries(load([f"--model-repository={repository}"])) == ({}, ())


# --- the examples


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_loads_without_a_warning(path: Path, repository: Path) -> None:
    config = load([f"--config={path}", f"--model-repository={repository}"])
    assert config.warnings == ()


def test_the_example_of_a_gpu_server_says_what_its_users_write(repository: Path) -> None:
    config = load([f"--config={GPU_EXAMPLE}", f"--model-repository={repository}"])
    assert list(config.entries) == ["my_resnet"]
    assert config.shm("python") == (4294967296, 64 << 20, 0)


def test_settings_are_frozen(repository: Path) -> None:
    config = load([f"--model-repository={repository}"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.http_port = 1  # type: ignore[misc]  # the point of the test
