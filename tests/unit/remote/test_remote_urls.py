"""URLs of remote repositories, and what their clients are told to get in."""

import json
from pathlib import Path
from typing import Any

import pytest

from broker.remote.credentials import NoCredentials, options
from configs import server
from configs.errors import ConfigError
from configs.remote import Remote, default_cache, lacking, models_directory, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/a/b/", ("s3://bucket/a/b", "s3", "", "bucket/a/b")),
        ("s3://bucket", ("s3://bucket", "s3", "", "bucket")),
        ("s3://minio:9000/bucket/a", ("s3://minio:9000/bucket/a", "s3", "http://minio:9000", "bucket/a")),
        ("s3://http://minio:9000/b", ("s3://http://minio:9000/b", "s3", "http://minio:9000", "b")),
        ("s3://https://minio:9000//b/a", ("s3://https://minio:9000/b/a", "s3", "https://minio:9000", "b/a")),
        ("s3://https://s3.example.com/b/a", ("s3://https://s3.example.com/b/a", "s3", "https://s3.example.com", "b/a")),
        ("gs://bucket//a", ("gs://bucket/a", "gs", "", "bucket/a")),
        ("as://account/box/a", ("as://account/box/a", "as", "account", "box/a")),
        ("as://account.blob.core.windows.net/box", ("as://account.blob.core.windows.net/box", "as", "account", "box")),
        ("hf://me/models@v1/a", ("hf://me/models@v1/a", "hf", "", "me/models@v1/a")),
        ("https://x.org/m.tar.gz?sig=1", ("https://x.org/m.tar.gz?sig=1", "http", "", "https://x.org/m.tar.gz?sig=1")),
    ],
)
def test_what_urls_mean(text: str, expected: tuple[str, ...]) -> None:
    assert parse(text) == Remote(*expected)


@pytest.mark.parametrize(
    "text",
    [
        "s3://", "s3://b/../c", "s3://host:1", "gs://", "as://account", "hf://model", "ftp://x/y.zip", "https://x.org/models",
        "https://me:secret@x.org/m.zip", "https:///m.zip", "s3://b/\n", "s3://b?x=1",
    ],
)  # fmt: skip
def test_what_is_no_url_of_a_repository(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(write |this is |'ftp' is |over http|a URL with )"):
        parse(text)


def test_signatures_are_not_shown() -> None:
    remote = parse("https://x.org/m.zip?sig=secret")
    assert "secret" not in str(remote)
    assert "secret" not in remote.mirror
    assert remote.mirror != parse("https://x.org/m.zip?sig=other").mirror
    assert len(parse("s3://" + "b" * 900).mirror) < 100


def test_settings_make_urls_mirrors_in_the_cache(tmp_path: Path) -> None:
    config = server.load([f"--repository-cache={tmp_path}", "--model-repository=s3://b/m", f"--model-store={tmp_path}"])
    mirror = models_directory(tmp_path, parse("s3://b/m"))
    assert config.model_repository == (mirror, tmp_path)
    assert config.remotes == {mirror: parse("s3://b/m")}
    assert mirror.is_relative_to(tmp_path)
    with pytest.raises(
        ConfigError, match=r"--model-repository: 'https://x.org': over http\(s\) a repository is an archive"
    ):
        server.load(["--model-repository=https://x.org"])


def test_a_cache_that_cannot_be_written_is_an_error_of_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as caught:
        server.load(["--model-repository=s3://b/m", f"--repository-cache={tmp_path}/file/cache"])
    assert str(caught.value) == (
        f"repository_cache: '{tmp_path}/file/cache' cannot be written: give --repository-cache=PATH"
    )


def test_a_missing_package_says_what_to_install() -> None:
    assert lacking(parse("as://account/box"), lambda _: None) == (
        "as:// needs the package 'adlfs', which is not installed: pip install 'tidepool[azure]'"
    )
    assert lacking(parse("as://account/box"), lambda _: "found") == ""
    assert lacking(parse("https://x.org/m.zip"), lambda _: None) == ""


def test_where_the_cache_is() -> None:
    assert default_cache({"XDG_CACHE_HOME": "/x", "HOME": "/h"}) == Path("/x/tidepool/repositories")
    assert default_cache({"XDG_CACHE_HOME": "x", "HOME": "/h"}) == Path("/h/.cache/tidepool/repositories")


# ----------------------------------------------------------------------------------------------- credentials

FILE = {
    "s3": {
        "": {"key_id": "k0", "secret_key": "s0"},
        "s3://b": {"key_id": "k1", "secret_key": "s1", "region": "r", "session_token": "t", "profile": ""},
        "s3://b/deep": {"profile": "p"},
    },
    "gs": {"gs://b": "/key.json"},
    "as": {
        "": {"account_str": "acc", "account_key": "key"},
        "as://other": {"auth_type": "managed_identity", "client_id": "c"},
    },
}


def told(url: str, environ: dict[str, str] | None = None, file: Any = None) -> dict[str, Any]:
    found = options(parse(url), environ or {}, None if file is None else json.dumps(file))
    found.pop("config_kwargs", None)
    return found


def test_the_longest_prefix_in_the_file_counts_and_then_no_variable_does() -> None:
    environ = {"AZURE_STORAGE_ACCOUNT": "x", "AZURE_STORAGE_KEY": "y"}
    assert told("s3://z/m", environ, FILE) == {"key": "k0", "secret": "s0"}
    assert told("s3://b/m", environ, FILE) == {
        "key": "k1",
        "secret": "s1",
        "token": "t",
        "client_kwargs": {"region_name": "r"},
    }
    assert told("s3://b/deep/m", environ, FILE) == {"profile": "p"}
    assert told("gs://b/m", environ, FILE) == {"token": "/key.json"}
    assert told("as://acc/box", environ, FILE) == {"account_name": "acc", "account_key": "key"}
    assert told("as://other/box", environ, FILE) == {"account_name": "other", "anon": False, "managed_identity": "c"}
    assert told("hf://me/models", environ, FILE) == {}


def test_without_a_file_the_variables_count() -> None:
    assert told("s3://b/m", {"AWS_ACCESS_KEY_ID": "k"}) == {}, "its library reads them"
    assert told("gs://b/m") == {}
    key = {"AZURE_STORAGE_ACCOUNT": "x", "AZURE_STORAGE_KEY": "y"}
    assert told("as://acc/box", key) == {"account_name": "acc", "account_key": "y"}
    assert told("as://acc/box", {"AZURE_STORAGE_AUTH_TYPE": "default"}) == {"account_name": "acc", "anon": False}
    assert told("as://acc/box") == {"account_name": "acc", "anon": True}


def test_an_endpoint_is_asked_by_path() -> None:
    found = options(parse("s3://https://minio:9000/b/m"), {}, None)
    assert found["endpoint_url"] == "https://minio:9000"
    assert found["config_kwargs"]["s3"] == {"addressing_style": "path"}


@pytest.mark.parametrize(
    ("url", "file", "error"),
    [
        ("gs://other/m", FILE, "Cannot match credential for path  gs://other/m"),
        ("s3://b/m", {}, "Cannot match credential for path  s3://b/m"),
        ("s3://b/m", {"s3": {"": "text"}}, "has no credentials for s3://b/m, but str"),
        ("s3://b/m", [], "cannot be understood"),
        ("s3://b/m", {"s3": 5}, "cannot be understood"),
    ],
)
def test_a_file_that_does_not_say(url: str, file: Any, error: str) -> None:
    with pytest.raises(NoCredentials, match=error):
        told(url, {}, file)
