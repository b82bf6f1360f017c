"""Addresses: what is one, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from distsgd.base.addresses import SCHEMES
from distsgd.base.locations import Location, place_argument, place_of
from distsgd.errors import ConfigError


@pytest.mark.parametrize("text", ["a", "a/b", "/a", "/s3:/a", "s3:a", "C:\\a", "a b", ""])
def test_place_of_a_path_is_a_path(text: str) -> None:
    assert place_of(text) == Path(text)
    assert place_of(Path(text)) == Path(text)


def test_folder_that_is_called_as_a_scheme_is_named_from_where_one_is() -> None:
    assert place_of("./s3:/a") == Path("s3:/a")


def test_place_of_a_file_address_is_a_path() -> None:
    assert place_of("file:///a/b%20c") == Path("/a/b c")
    assert place_of("file://localhost/a") == Path("/a")


@pytest.mark.parametrize(
    ("text", "scheme", "name"),
    [
        ("s3://bucket", "s3", "bucket"),
        ("s3://bucket/a/b.parquet", "s3", "b.parquet"),
        ("gs://bucket/a/", "gs", "a"),
        ("abfs://container@account.dfs.core.windows.net/a", "abfs", "a"),
        ("hdfs://host:8020/a", "hdfs", "a"),
    ],
)
def test_place_of_an_address_is_a_location(text: str, scheme: str, name: str) -> None:
    place = place_of(text)
    assert isinstance(place, Location)
    assert (place.scheme, place.name) == (scheme, name)
    assert str(place / "x") == f"{text.rstrip('/')}/x"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://host/a", "s3, gs, abfs, hdfs or file"),
        ("S3://bucket/a", "did you mean 's3'"),
        ("file://host/a", "from its root"),
        ("file://", "from its root"),
        ("s3://", "BUCKET/KEY"),
        ("s3:///a", "BUCKET/KEY"),
        ("abfs://container/a", "abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/KEY"),
        ("abfs://c@account.blob.core.windows.net/a", "must be abfs://CONTAINER@ACCOUNT.dfs"),
        ("s3://bucket//a", "without empty parts"),
        ("s3://bucket/../a", "without empty parts"),
        ("s3://bucket/a?region=x", "without ? and #"),
        ("s3://bucket/a#b", "without ? and #"),
    ],
)
def test_place_of_refuses_other_addresses_by_their_rule(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        place_of(text)
    assert said in str(caught.value)


@pytest.mark.parametrize("scheme", [*SCHEMES, "s3a", "https", "S3", "file"])
@pytest.mark.parametrize(
    "rest",
    [
        "key:secret@bucket/a",
        ":secret@account/a",
        "key:top/secret@bucket/a",
        "key:to/secret@bucket/a?y=secret",
        "key:secret@secret@bucket",
        "key:secret/@secret/bucket@x",
        "bucket/a?token=key:secret@",
    ],
)
def test_place_of_never_takes_or_repeats_a_key(scheme: str, rest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        place_of(f"{scheme}://{rest}")
    assert "secret" not in str(caught.value)
    assert "from the environment" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "https://bucket.s3.amazonaws.com/a?X-Amz-Signature=secret",
        "s3://bucket/a?secret",
        "s3://secret@bucket/a",
        "s3a://secret@bucket/a",
        "gs://secret@bucket//a",
        "file://host/a?secret",
        "s3://bucket/a#secret",
    ],
)
def test_place_of_repeats_neither_a_query_nor_what_is_before_an_at(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        place_of(text)
    assert "secret" not in str(caught.value)


def test_place_of_takes_an_at_that_is_no_keys() -> None:
    assert place_of("s3://bucket/a@b") == Location("s3://bucket/a@b")
    assert place_of("file:///a:b@c") == Path("/a:b@c")


@pytest.mark.parametrize("scheme", [*SCHEMES, "file"])
def test_address_that_was_made_a_path_is_refused_with_the_way_out(scheme: str) -> None:
    for place in (Path(f"{scheme}://bucket/a"), f"{scheme}:/bucket/a"):
        with pytest.raises(ConfigError, match=f"given as a text that begins with {scheme}://"):
            place_argument("run_dir", place)
    with pytest.raises(ConfigError) as caught:
        place_argument("run_dir", Path("s3://key:secret@bucket/a"))
    assert "secret" not in str(caught.value)
