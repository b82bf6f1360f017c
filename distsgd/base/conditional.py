"""One small object on storage that is replaced only by who has seen its present version.

Through obstore (extra ``s3``), since pyarrow.fs has no conditional put; it is told the region and
the keys that pyarrow finds. Where it is not installed,
or the store is of another kind, versions are compared before the put, which two writers at once may
both pass: `is_atomic` says so.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

from distsgd.base import locations
from distsgd.base.aws_keys import credential_provider
from distsgd.base.locations import CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S, Location
from distsgd.errors import StorageError, first_line

_ATOMIC = ("s3", "gs", "abfs")


class Superseded(Exception):  # noqa: N818 -- how a race ends, not a fault.
    """Another process has replaced the object, or was first to write it."""


class Seen(NamedTuple):
    """What an object holds, and the version of that."""

    data: bytes
    version: Any


class ConditionalObject:
    """The object at `location`; any thread may call.

    Attributes:
        location: Where it is.
        is_atomic: Whether of two writers at once only one can be first.
    """

    def __init__(self, location: Location) -> None:
        self.location = location
        self._store = _store_of(location) if location.scheme in _ATOMIC else None
        self.is_atomic = self._store is not None

    def read(self) -> Seen | None:
        """What it holds now; None where there is none. Blocks. Raises StorageError."""
        try:
            if self._store is None:
                data = self.location.read_bytes()
                return Seen(data, data)
            obstore = _obstore()
            with _errors(self.location, "reading"):
                found = obstore.get(self._store, self.location.key)
                version = {key: found.meta[key] for key in ("e_tag", "version")}
                return Seen(bytes(found.bytes()), version)
        except FileNotFoundError:
            self.location.check_bucket()
            return None

    def write(self, data: bytes, *, over: Seen | None) -> Seen:
        """Replace what was seen by `data`; None: only where there is none. Blocks.

        Raises:
            Superseded: It is not what was seen any more; nothing was written.
            StorageError: The storage refuses, or does not answer; it may have been written.
        """
        if self._store is None:
            now = self.read()
            if (now and now.data) != (over and over.data):
                raise Superseded
            self.location.write_bytes(data)
            return Seen(data, data)
        obstore = _obstore()
        errors: Any = obstore.exceptions
        refused: tuple[type[Exception], ...] = errors.AlreadyExistsError, errors.PreconditionError
        mode = "create" if over is None else {k: v for k, v in over.version.items() if v}
        try:
            with _errors(self.location, "writing", but=refused):
                put = obstore.put(self._store, self.location.key, data, mode=mode)
        except refused:
            now = self.read()
            if now is None or now.data != data:
                raise Superseded from None
            return now  # Written by the attempt whose answer was lost.
        except FileNotFoundError as error:
            self.location.check_bucket()
            if over is not None:
                raise Superseded from None  # It is gone.
            raise StorageError(self.location.address, f"writing: {first_line(error)}") from error
        return Seen(data, {key: put[key] for key in ("e_tag", "version")})


@contextlib.contextmanager
def _errors(
    location: Location, doing: str, but: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """What obstore raises in the block comes out as ours, except FileNotFoundError and `but`."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (FileNotFoundError, StorageError, *but)):
            raise
        raise StorageError(location.address, f"{doing}: {first_line(error)}") from error


def _obstore() -> Any:
    import obstore  # noqa: PLC0415 -- an extra.

    return obstore


def _store_of(location: Location) -> Any:
    """The bucket; None where obstore is not installed."""
    try:
        _obstore()
    except ModuleNotFoundError:
        return None
    with _errors(location, "connecting"):
        return _bucket(
            Location(f"{location.scheme}://{location.bucket}"), locations.endpoint(location.scheme)
        )


@functools.cache
def _bucket(root: Location, endpoint: str | None) -> Any:
    from obstore.store import from_url  # noqa: PLC0415 -- an extra.

    found: dict[str, Any] = {}
    if root.scheme == "s3":
        found["config"] = {"region": root.file_system()[0].region}
        if (provider := credential_provider()) is not None:
            found["credential_provider"] = provider
    return from_url(
        root.address,
        **found,
        client_options={
            "allow_http": (endpoint or "").startswith("http://"),
            "connect_timeout": f"{CONNECT_TIMEOUT_S:g}s",
            "timeout": f"{REQUEST_TIMEOUT_S:g}s",
        },
        retry_config={
            "max_retries": locations.MOST_ATTEMPTS - 1,
            "retry_timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
        },
    )
