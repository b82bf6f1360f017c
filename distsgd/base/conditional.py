"""One small object on storage that is replaced only by who has seen its present version.

Through obstore (extra ``s3``), since pyarrow.fs has no conditional put; it is told the region and
the keys that pyarrow finds. Where it is not installed, or the store is of another kind, or turns
out to ignore conditions, versions are compared before the put, which two writers at once may both
pass: `weakness` says so.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

from distsgd.base import locations
from distsgd.base.aws_keys import credential_provider
from distsgd.base.locations import CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S, Location, endpoint
from distsgd.base.refusals import explained
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
        weakness: Why of two writers at once not only one is first; "" where only one is.
    """

    def __init__(self, location: Location) -> None:
        self.location, self.weakness, self._store = location, "", None
        if location.scheme not in _ATOMIC:
            self.weakness = f"{location.scheme}:// has no conditional writes"
        elif (store := _store_of(location)) is None:
            self.weakness = "conditional writes need obstore (pip install 'distsgd[s3]')"
        else:
            self._store = store

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

    def begin(self, data: bytes, *, over: Seen | None) -> Seen:
        """`write`, and see whether the same write is refused when it comes again, as it must be.

        A store that takes it ignores conditions: `weakness` says so from then on. It was given
        what it had, so nothing was lost.
        """
        seen = self.write(data, over=over)
        if self._store is None:
            return seen
        try:
            self._put(data, over=over)
        except (_obstore().exceptions.BaseError, OSError, StorageError):
            return seen  # Refused; or not answered, which proves nothing.
        self._store = None
        self.weakness = "this storage ignores the conditions of writes (If-Match)"
        return Seen(data, data)

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
        errors: Any = _obstore().exceptions
        refused: tuple[type[Exception], ...] = errors.AlreadyExistsError, errors.PreconditionError
        try:
            with _errors(self.location, "writing", but=refused):
                return self._put(data, over=over)
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

    def _put(self, data: bytes, *, over: Seen | None) -> Seen:
        mode: Any = "create" if over is None else {k: v for k, v in over.version.items() if v}
        put = _obstore().put(self._store, self.location.key, data, mode=mode)
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
        why = explained(error, location.scheme, endpoint(location.scheme))
        raise StorageError(location.address, f"{doing}: {why}") from error


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
