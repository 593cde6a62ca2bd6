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
        (["local,foo=1"], 0, "'foo' is no setting of the local cache"),
        *[([f"local,size={size}"], 0, "a valid 'size' field") for size in ("", "x", "0", "-5", "1e6", "9" * 30, "²")],
        (["lokal,size=5"], 0, "unable to find cache 'lokal', there are: local.*did you mean 'local'"),
        (["local,size=5", "other,x=1"], 0, "found multiple cache configurations"),
        (["local,size=5"], 5, "Incompatible flags --response-cache-byte-size and --cache-config both provided"),
    ],
)
def test_what_is_wrong(settings: list[str], old: int, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse(settings, old)
