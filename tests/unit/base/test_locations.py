"""Addresses: what is one, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from distsgd.base.locations import Location, place_of
from distsgd.errors import ConfigError


@pytest.mark.parametrize("text", ["a", "a/b", "/a", "s3:/a", "C:\\a", "a b", ""])
def test_place_of_a_path_is_a_path(text: str) -> None:
    assert place_of(text) == Path(text)
    assert place_of(Path(text)) == Path(text)


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


@pytest.mark.parametrize("text", ["s3://key:secret@bucket/a", "abfs://:secret@account/a"])
def test_place_of_never_repeats_a_key(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        place_of(text)
    assert "secret" not in str(caught.value)
    assert "from the environment" in str(caught.value)
