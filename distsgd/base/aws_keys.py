"""Keys for S3 from the files of a profile, for obstore, which does not look there.

The order is that of pyarrow, so that both have the same keys: the environment; the profile in
``~/.aws/credentials`` and ``~/.aws/config``; what the pod or the machine gives, which obstore finds
by itself. Keys are written nowhere.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from distsgd.errors import StorageError

KEYS = ("aws_access_key_id", "aws_secret_access_key")
_READ_AGAIN = timedelta(minutes=5)  # As pyarrow's client does: a login may have renewed the file.
_BY_BOTO3 = ("credential_process", "sso_session", "sso_start_url")  # Of a profile without keys.


def credential_provider() -> Callable[[], Any] | None:
    """What gives obstore the keys of the profile; None where it finds keys by itself, or none.

    Raises:
        StorageError: The files cannot be read, or say that keys come from a place that takes boto3.
    """
    if all(os.environ.get(name.upper()) for name in KEYS):
        return None
    profile = _profile(os.environ)
    if all(profile.get(name) for name in KEYS):
        return _keys
    found = [name for name in _BY_BOTO3 if name in profile]
    if not found or os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415 -- an extra.
    except ModuleNotFoundError:
        reason = f"finds its keys by {found[0]}, which takes boto3 (pip install boto3)"
        raise StorageError(f"profile {_name(os.environ)}", reason) from None
    provider: Callable[[], Any] = Boto3CredentialProvider()
    return provider


def _keys() -> dict[str, Any]:
    profile = _profile(os.environ)
    return {
        "access_key_id": profile.get(KEYS[0], ""),
        "secret_access_key": profile.get(KEYS[1], ""),
        "token": profile.get("aws_session_token"),
        "expires_at": datetime.now(UTC) + _READ_AGAIN,
    }


def _name(environment: Mapping[str, str]) -> str:
    return environment.get("AWS_PROFILE") or "default"


def _profile(environment: Mapping[str, str]) -> dict[str, str]:
    """What the files say of the profile; where both do, the one for keys."""
    name = _name(environment)
    config = environment.get("AWS_CONFIG_FILE") or "~/.aws/config"
    keys = environment.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials"
    in_config = name if name == "default" else f"profile {name}"
    return _section(config, in_config) | _section(keys, name)


def _section(file: str, name: str) -> dict[str, str]:
    path = Path(os.path.expanduser(file))  # noqa: PTH111 -- a user may have no home.
    parser = configparser.RawConfigParser(strict=False, default_section="")
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, ValueError):  # What they say may repeat a key.
        reason = "cannot be read; must have sections in brackets and lines NAME = VALUE"
        raise StorageError(str(path), reason) from None
    return dict(parser[name]) if parser.has_section(name) else {}
