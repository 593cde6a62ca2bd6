"""What a listing asks for: pure planning, and names that nobody should trust."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.remote.plan import Entry, Tree, plan, read, tag

SEGMENTS = st.sampled_from(["a", "b", "1", "..", ".", "", "config.pbtxt", ".git", "x\0y", "x" * 300, "é"])
PATHS = st.lists(SEGMENTS, max_size=4).map("/".join)
ENTRIES = st.builds(Entry, PATHS, st.integers(0, 3), st.sampled_from(["md5:a", "md5:b", "etag:u:1"]))
LISTINGS = st.lists(ENTRIES, max_size=12)


def entry(path: str, content: str = "x") -> Entry:
    return Entry(path, len(content), f"md5:{content}")


@given(LISTINGS)
def test_nothing_of_a_listing_leads_out_of_its_models_directory(entries: list[Entry]) -> None:
    listing = read(entries)
    for name, tree in listing.models.items():
        assert name not in {"", ".", ".."}
        for path in (*tree.files, *tree.directories):
            parts = PurePosixPath(path).parts
            assert "/".join((name, *parts)) == f"{name}/{path}"
            assert not {"..", "."} & set(parts)
            assert "\0" not in path
            assert not path.startswith("/")
        assert not tree.files.keys() & tree.directories


@given(LISTINGS, LISTINGS, st.none() | st.sets(st.sampled_from(["a", "b", "1"])))
def test_a_plan_that_is_carried_out_leaves_nothing_to_do(
    before: list[Entry], after: list[Entry], wanted: set[str] | None
) -> None:
    published: dict[str, str] = {}
    objects: set[str] = set()
    for entries in (before, after, after):
        listing = read(entries)
        planned = plan(listing, published, wanted, lambda e, objects=frozenset(objects): e.key in objects)  # type: ignore[misc]
        assert len({e.key for e in planned.fetch}) == len(planned.fetch), "each object once"
        assert not {e.key for e in planned.fetch} & objects
        objects |= {e.key for e in planned.fetch}
        for name in planned.remove:
            del published[name]
        published |= dict.fromkeys(planned.postpone, "unfetched")
        for name, tree in planned.publish.items():
            assert {e.key for e in tree.files.values()} <= objects, "it can be put together"
            published[name] = tree.snapshot
    assert planned.fetch == planned.postpone == planned.remove == ()
    assert not planned.publish
    every = listing.models.items()
    assert {n: t.snapshot for n, t in every if wanted is None or n in wanted}.items() <= published.items()
    assert published.keys() >= listing.models.keys()
    assert published.keys() <= {*listing.models, *listing.refused}


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("m/../../etc/passwd", "'m/../../etc/passwd' is no path below the model's directory"),
        ("m//x", "'m//x' is no path below the model's directory"),
        ("m/config.pbtxt/x", "'m/config.pbtxt' is both a file and a directory"),
        ("m/config.pbtxt", "'m/config.pbtxt' is there twice"),
    ],
)
def test_a_model_with_a_name_that_cannot_be_is_refused_and_no_other(path: str, reason: str) -> None:
    listing = read([entry("m/config.pbtxt"), entry(path), entry("n/config.pbtxt")])
    assert listing.refused == {"m": reason}
    assert list(listing.models) == ["n"]


def test_files_beside_models_and_hidden_directories_are_none() -> None:
    assert read([entry("README.md"), entry(".git/config"), entry("../m/x"), entry("/etc/x")]).models == {}


def test_an_empty_directory_is_there() -> None:
    assert read([Entry("ensemble/1/", 0, "")]).models == {"ensemble": Tree({}, {"1"})}


def test_a_model_that_is_refused_stays_as_it_is() -> None:
    listing = read([entry("m/config.pbtxt"), entry("m/config.pbtxt/x")])
    assert plan(listing, {"m": "old"}, None, lambda e: False) == ((), {}, (), ())


def test_equal_content_is_fetched_once_and_a_renamed_file_not_at_all() -> None:
    listing = read([entry("m/1/a", "same"), entry("n/1/b", "same"), entry("n/1/c", "other")])
    planned = plan(listing, {}, None, lambda e: e.tag == "md5:other")
    assert [e.tag for e in planned.fetch] == ["md5:same"]
    moved = read([entry("m/1/z", "same")])
    assert moved.models["m"].snapshot != listing.models["m"].snapshot


@pytest.mark.parametrize(
    ("scheme", "info", "expected"),
    [
        ("s3", {"ETag": '"0123456789abcdef0123456789abcdef"'}, "md5:0123456789abcdef0123456789abcdef"),
        ("s3", {"ETag": '"0123456789abcdef0123456789abcdef-3"'}, "etag:URL:0123456789abcdef0123456789abcdef-3"),
        ("gs", {"md5Hash": "1B2M2Y8AsgTpgAmY7PhCfg==", "etag": "x"}, "md5:d41d8cd98f00b204e9800998ecf8427e"),
        ("gs", {"etag": "CPjz="}, "etag:URL:CPjz="),
        ("as", {"content_settings": {"content_md5": bytearray(b"\1\2")}, "etag": "x"}, "md5:0102"),
        ("as", {"content_settings": {"content_md5": None}, "etag": "0x8D"}, "etag:URL:0x8D"),
        ("hf", {"lfs": {"sha256": "ab"}, "blob_id": "cd"}, "sha256:ab"),
        ("hf", {"lfs": None, "blob_id": "cd"}, "git:cd"),
        ("s3", {}, ""),
    ],
)
def test_what_clients_say_about_a_files_content(scheme: str, info: Mapping[str, Any], expected: str) -> None:
    assert tag(scheme, "URL", info) == expected
