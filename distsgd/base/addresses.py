"""What is an address of object storage, as it is typed. Pure; no I/O here.

The one place that knows the schemes. What may be a key is refused, and not repeated.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from distsgd.base import azure
from distsgd.base.settings import refuse
from distsgd.errors import did_you_mean

SCHEMES = ("s3", "gs", "abfs", "hdfs")
_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
_KEYS = "they come from the environment or ~/.aws"
_ONE_SLASH = re.compile(rf"({'|'.join(SCHEMES)}|file):/")  # What a path makes of an address.


def checked_address(text: str | Path) -> str | Path:
    """An address without a slash at the end, or a path of this machine.

    >>> checked_address("s3://bucket/runs/a/"), checked_address("runs/a")
    ('s3://bucket/runs/a', PosixPath('runs/a'))

    Raises:
        ConfigError: The scheme is not known, there is no bucket, or the address says more than
            where the files are.
    """
    match = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        if found := _ONE_SLASH.match(str(text)):
            rule = f"given as a text that begins with {found[1]}://, as pathlib.Path drops a slash"
            refuse("an address", without_keys(str(text)), f"{rule} (a folder: ./{found[1]}:/)")
        return Path(text)
    text, scheme, rest = match[0], match["scheme"], match["rest"]
    shown = without_keys(text)
    # Before all else: a key may hold a slash, and what comes later repeats what was typed.
    if ":" in rest.rpartition("@")[0] and not text.startswith("file:///"):
        refuse("an address", shown, f"without keys in it ({_KEYS}; no : is taken before an @)")
    if scheme == "file":
        parts = urlsplit(str(text))
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            refuse("an address", shown, "file:///PATH: of this machine, from its root")
        return Path(unquote(parts.path))
    _check_place(scheme, rest, shown)
    return f"{scheme}://{rest.rstrip('/')}"


def _check_place(scheme: str, rest: str, shown: str) -> None:
    """Raises ConfigError where `rest` is no bucket and key of that scheme."""
    if scheme not in SCHEMES:
        known = f"a path, or an address that begins with {', '.join(SCHEMES)} or file and ://"
        refuse("an address", shown, known + did_you_mean(scheme, SCHEMES))
    root, _, key = rest.rstrip("/").partition("/")
    if "@" in root and scheme == "s3":
        refuse("an address", shown, f"without keys in it ({_KEYS})")
    if "?" in rest or "#" in rest:
        rule = "without ? and # (an endpoint comes from the environment: AWS_ENDPOINT_URL)"
        refuse("an address", shown, rule)
    if scheme == "abfs" and not azure.is_root(root):
        refuse("an address", shown, azure.RULE)
    if not root or any(part in ("", ".", "..") for part in key.split("/") if key):
        refuse("an address", shown, f"{scheme}://BUCKET/KEY, without empty parts, . and ..")


def without_keys(text: str) -> str:
    """An address for messages: nothing of what may be a key in it, or of a signature.

    >>> without_keys("s3a://KEY:se/cret@bucket/x?y=1"), without_keys("https://b/x?Signature=1")
    ('s3a://...@bucket/x...', 'https://b/x...')
    """
    scheme, slashes, rest = re.split("(:/+)", text, maxsplit=1)
    _, at, place = rest.rpartition("@")
    kept = re.split("[?#]", place, maxsplit=1)
    return f"{scheme}{slashes}{'...@' if at else ''}{kept[0]}{'...' if kept[1:] else ''}"
