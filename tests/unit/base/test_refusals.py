"""What a storage's client raises is told with what to do about it."""

from __future__ import annotations

import pytest

from distsgd.base.locations import Location
from distsgd.base.refusals import explained
from distsgd.errors import StorageError

NO_KEYS = "Error performing PUT http://169.254.169.254/latest/api/token - 403 Forbidden"


@pytest.mark.parametrize(
    ("scheme", "variable"),
    [
        ("s3", "AWS_ACCESS_KEY_ID"),
        ("gs", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("abfs", "AZURE_STORAGE_ACCOUNT_KEY"),
    ],
)
def test_lack_of_keys_names_where_they_come_from(scheme: str, variable: str) -> None:
    said = explained(OSError(NO_KEYS), scheme, None)
    assert said.startswith(f"no keys are found: set {variable}")
    assert NO_KEYS in said


def test_what_is_not_known_is_left_as_it_is() -> None:
    for scheme in ("s3", "gs", "abfs", "hdfs"):
        assert explained(OSError("503 SlowDown\nmore"), scheme, "http://here") == "503 SlowDown"
    assert explained(OSError("curlCode: 7"), "gs", None) == "curlCode: 7"
    assert "set AWS_ENDPOINT_URL" in explained(OSError("curlCode: 6"), "s3", None)


def test_endpoint_where_nothing_listens_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"nothing answers at http://127\.0\.0\.1:9, where AWS_"):
        Location("s3://bucket/a").stat()
