"""`cache_config` as tritonserver takes it, and models that ask for a cache."""

import pytest

from configs.cache import CacheConfig, parse


def test_the_local_cache() -> None:
    assert parse(()) == CacheConfig("", 0)
    assert parse(["local,size=1048576"]) == CacheConfig("local", 1048576)
    assert parse(["local,size=1", "local,size=2"]).byte_size == 2
    assert parse((), 77) == CacheConfig("local", 77)


@pytest.mark.parametrize(
    ("settings", "old", "problem"),
    [
        (["local"], 0, "'local': write <cache_name>,<setting>=<value>"),
        (["size=5"], 0, "'size=5': write <cache_name>,<setting>=<value>"),
        ([",size=5"], 0, "',size=5': write"),
        (["local,size"], 0, "'local,size': write"),
        (["local,foo=1"], 0, "'foo' is no setting of the cache 'local'"),
        *[([f"local,size={size}"], 0, "a valid 'size' field") for size in ("", "x", "0", "-5", "1e6", "9" * 30, "²")],
        (["lokal,size=5"], 0, "unable to find cache 'lokal', there are: local.*did you mean 'local'"),
        (["local,size=5", "other,x=1"], 0, "found multiple cache configurations"),
        (["local,size=5"], 5, "Incompatible flags --response-cache-byte-size and --cache-config both provided"),
    ],
)
def test_what_is_wrong(settings: list[str], old: int, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse(settings, old)


def test_redis() -> None:
    found = parse(["redis,host=h", "redis,port=7000", "redis,db=2", "redis,socket_timeout=100", "redis,password=a=b,c"])
    assert found.name == "redis"
    assert found.options == {
        "host": "h",
        "port": 7000,
        "db": 2,
        "user": "",
        "password": "a=b,c",
        "connect_timeout": 500,
        "socket_timeout": 100,
    }
    assert parse(["redis,host=h"]).options["port"] == 6379


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["redis,port=5"], "Must at a minimum specify 'host'"),
        (["redis,host=h", "redis,port=0"], "'port' must be a number from 1 to 65535, got '0'"),
        (["redis,host=h", "redis,db=-1"], "'db' must be a number from 0"),
        (["redis,host=h", "redis,socket_timeout=60000"], "'socket_timeout' must be a number from 1 to 5000"),
        (["redis,host=h", "redis,pool_size=3"], "'pool_size' is no setting of the cache 'redis', there are: host"),
    ],
)
def test_what_is_wrong_with_redis(settings: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse(settings)


def test_redis_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("configs.cache.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'tidepool\[redis\]'"):
        parse(["redis,host=h"])
