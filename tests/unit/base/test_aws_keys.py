"""Keys of a profile, from the files in which other tools look for them."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from distsgd.base.aws_keys import credential_provider
from distsgd.errors import StorageError

CREDENTIALS = """\
# A comment.
[default]
aws_access_key_id = OF-DEFAULT
aws_secret_access_key = s%cret=/+

[both]
AWS_ACCESS_KEY_ID=OF-CREDENTIALS
aws_secret_access_key=second
aws_session_token=once
[default]
extra = 1
"""
CONFIG = """\
[default]
region = eu-west-1
[profile both]
aws_access_key_id = OF-CONFIG
aws_secret_access_key = other
[profile config]
aws_access_key_id = OF-CONFIG
aws_secret_access_key = third
s3 =
    max_concurrent_requests = 20
[profile half]
aws_access_key_id = OF-HALF
[profile login]
credential_process = /bin/true
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "PROFILE", "CONFIG_FILE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    for name in ("SHARED_CREDENTIALS_FILE", "WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(CREDENTIALS)
    (tmp_path / ".aws" / "config").write_text(CONFIG)
    return tmp_path


def keys() -> dict[str, Any] | None:
    provider = credential_provider()
    return None if provider is None else provider()


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("", ("OF-DEFAULT", "s%cret=/+", None)),
        ("both", ("OF-CREDENTIALS", "second", "once")),
        ("config", ("OF-CONFIG", "third", None)),
        ("half", None),
        ("none", None),
    ],
)
def test_profile_has_the_keys_of_its_section(
    profile: str, expected: tuple[str, str, str | None] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", profile)
    found = keys()
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert (found["access_key_id"], found["secret_access_key"], found["token"]) == expected
        assert found["expires_at"] > datetime.now(UTC)


def test_environment_comes_first_where_it_has_both_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "OF-ENVIRONMENT")
    assert keys() is not None
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    assert keys() is None


def test_files_may_lie_elsewhere_and_need_not_exist(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".aws" / "credentials").rename(home / "mine")
    assert keys() is None
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "~/mine")
    assert (keys() or {})["access_key_id"] == "OF-DEFAULT"
    (home / ".aws" / "config").rename(home / "settings")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(home / "settings"))
    monkeypatch.setenv("AWS_PROFILE", "config")
    assert (keys() or {})["access_key_id"] == "OF-CONFIG"


def test_keys_that_were_renewed_are_read_again(home: Path) -> None:
    provider = credential_provider()
    assert provider is not None
    (home / ".aws" / "credentials").write_text(CREDENTIALS.replace("OF-DEFAULT", "RENEWED"))
    assert provider()["access_key_id"] == "RENEWED"


@pytest.mark.parametrize(
    "content", [b"aws_secret_access_key = hidden\n", b"[default]\nhidden\n", b"\xff"]
)
def test_file_that_is_none_is_named_and_not_repeated(home: Path, content: bytes) -> None:
    (home / ".aws" / "credentials").write_bytes(content)
    with pytest.raises(StorageError, match=r"\.aws/credentials: cannot be read") as caught:
        keys()
    assert "hidden" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_profile_whose_keys_come_from_a_program_takes_boto3(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "login")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "boto3", None)
        without.delitem(sys.modules, "obstore.auth.boto3", raising=False)
        with pytest.raises(StorageError, match="profile login: finds its keys by credential_proc"):
            keys()
        without.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/token")
        assert keys() is None
