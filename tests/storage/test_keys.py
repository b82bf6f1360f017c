"""Keys of a profile: files and pointer of a run are written with the same ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from distsgd.base.conditional import ConditionalObject
from distsgd.base.locations import Location
from tests.storage.proxy import FaultProxy

SECRET = "nobody+may/see+this"  # noqa: S105 -- of no account.
PUBLISH = """
import sys
from pathlib import Path
from distsgd.base.locations import Location
from distsgd.store.remote_run import RemoteRun
run = RemoteRun(Location(sys.argv[1]))
assert not run.weakness
run.create(Path(sys.argv[2]))
with run.lease("me") as lease:
    lease.publish(Path(sys.argv[2]))
"""


@pytest.fixture
def profile(bucket: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are in files only, those of the profile that is chosen and others."""
    del bucket  # Which has set others.
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text(
        "[profile mine]\nregion = eu-west-2\n"
        "[profile login]\ncredential_process = "
        f'echo \'{{"Version": 1, "AccessKeyId": "LOGIN", "SecretAccessKey": "{SECRET}"}}\'\n'
    )
    (tmp_path / "keys").write_text(
        f"[default]\naws_access_key_id = DEFAULT\naws_secret_access_key = {SECRET}\n"
        f"[mine]\naws_access_key_id = MINE\naws_secret_access_key = {SECRET}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("AWS_PROFILE", "mine")


@pytest.mark.usefixtures("profile")
def test_run_is_written_with_the_keys_and_the_region_of_the_profile_and_has_none_in_it(
    bucket: Location, proxy: FaultProxy, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "config.json").write_text("{}")
    proxy.keys.clear()
    # In a process of its own: pyarrow reads the files once in each.
    words = [str(bucket / "run"), str(tmp_path / "work")]
    subprocess.run([sys.executable, "-W", "error", "-c", PUBLISH, *words], check=True, timeout=60)
    assert proxy.keys == {("MINE", "eu-west-2")}
    assert {"PUT", "GET"} <= {line.split()[0] for line in proxy.requests}
    for stored in (bucket / "run").files():
        data = stored.location.read_bytes()
        assert SECRET.encode() not in data
        assert b"MINE" not in data


@pytest.mark.usefixtures("profile")
def test_pointer_takes_keys_from_a_program_by_boto3(
    bucket: Location, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("boto3")
    monkeypatch.setenv("AWS_PROFILE", "login")
    proxy.keys.clear()
    assert ConditionalObject(bucket / "pointer").write(b"1", over=None).data == b"1"
    assert "LOGIN" in {key for key, _ in proxy.keys}
