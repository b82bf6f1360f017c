"""Addresses of files that are on no disk of this machine: object storage, through pyarrow.fs.

An address is checked where it comes in (`addresses`). What it needs besides (keys, region) is found
by pyarrow in the environment and in the usual files; it is never part of the address, and so is
never written down.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from distsgd.base import azure
from distsgd.base.addresses import checked_address
from distsgd.base.first_contact import within
from distsgd.base.refusals import explained
from distsgd.base.settings import refuse
from distsgd.errors import StorageError

ENDPOINTS = {"s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), "abfs": (azure.ENDPOINT,)}
CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 20.0  # Of silence; what moves is never cut off.
CONTACT_TIMEOUT_S = 10.0  # Of the first question, where the client knows no timeout.
MOST_ATTEMPTS = 5  # Of one request that the storage refuses for a while (503, a reset).
# Of one request to gs, which pyarrow tries for a quarter of an hour. For abfs it has nothing to
# set; the waits of hdfs stand in core-site.xml.
RETRY_S = REQUEST_TIMEOUT_S * MOST_ATTEMPTS
PART_SIZE_BYTES = 8 << 20  # Of a file, in memory.
_PARTS_UNDERWAY = 4

OnPart = Callable[[int], None]


def _is_unwatched(_num_bytes: int) -> None:
    """Nobody watches a copy."""


class StoredFile(NamedTuple):
    """A file as its storage lists it; `mtime_ns` is None where the storage does not say."""

    location: Location
    size_bytes: int
    mtime_ns: int | None


@dataclass(frozen=True, slots=True)
class Location:
    """A place on object storage; make one with `place_of`.

    Attributes:
        address: ``scheme://bucket/key``, without a slash at the end.
    """

    address: str

    def __str__(self) -> str:
        return self.address

    def __truediv__(self, name: str) -> Location:
        return Location(f"{self.address}/{name}")

    @property
    def scheme(self) -> str:
        """What stands before ``://``."""
        return self.address.partition("://")[0]

    @property
    def bucket(self) -> str:
        """What stands before the first slash of the rest: bucket, container or host."""
        return self.address.partition("://")[2].partition("/")[0]

    @property
    def key(self) -> str:
        """What stands behind that slash."""
        return self.address.partition("://")[2].partition("/")[2]

    @property
    def name(self) -> str:
        """What stands after the last slash."""
        return self.address.rpartition("/")[2]

    def file_system(self) -> tuple[Any, str]:
        """The `pyarrow.fs.FileSystem`, and the path in it.

        Raises:
            StorageError: There is none for this address.
        """
        with self.errors("connecting"):
            if self.scheme == "s3":
                return _s3(endpoint("s3")), self.address.partition("://")[2]
            told = endpoint(self.scheme), os.environ.get(azure.KEY)
            system, path = _reached(self.scheme, self.bucket, told)
            return system, f"{(path or self.bucket).rstrip('/')}/{self.key}".lstrip("/")

    def read_bytes(self) -> bytes:
        """The whole file; blocks. For what is small; raises as `parts`."""
        return b"".join(self.parts())

    def parts(self) -> Iterator[bytes]:
        """The file, part by part; blocks.

        Raises:
            FileNotFoundError: It is not there.
            StorageError: The storage refuses, or does not answer; or there is no such bucket.
        """
        system, path = self.file_system()
        with contextlib.ExitStack() as stack:
            with self.errors("reading"):
                stream = stack.enter_context(system.open_input_stream(path, compression=None))
            while True:
                with self.errors("reading"):
                    part = stream.read(PART_SIZE_BYTES)
                if not part:
                    return
                yield part

    def write_bytes(self, data: bytes) -> None:
        """Write the whole file; as `write_parts`."""
        self.write_parts([data])

    def write_parts(self, parts: Iterable[bytes]) -> None:
        """Write the whole file, in place of one that was there; blocks.

        What fails halfway may leave a part of it: what names the file is written after it.

        Raises:
            StorageError: The storage refuses, or does not answer; or there is no such bucket.
        """
        system, path = self.file_system()
        with self.errors("writing"):
            if self.scheme == "hdfs":
                system.create_dir(path.rpartition("/")[0], recursive=True)
            stream = system.open_output_stream(path, compression=None)
        try:
            for number, part in enumerate(parts, 1):
                with self.errors("writing"):
                    stream.write(part)
                    if number % _PARTS_UNDERWAY == 0:
                        stream.flush()  # Or all of them wait in memory for a slow network.
            with self.errors("writing"):
                stream.close()
        finally:
            with contextlib.suppress(OSError):  # Of what was said already.
                stream.close()

    def copy_to(self, path: Path, on_part: OnPart = _is_unwatched) -> None:
        """Write the whole file to a new one of this machine; blocks.

        Args:
            path: Of the new file.
            on_part: Called with the number of bytes of each part that has come.

        Raises OSError where the disk refuses; or as `parts`.
        """
        with path.open("xb") as out:
            for part in self.parts():
                out.write(part)
                on_part(len(part))

    def copy_from(self, path: Path, on_part: OnPart = _is_unwatched) -> None:
        """Write a file of this machine here, in place of one that was there; blocks.

        Args:
            path: Of the file.
            on_part: Called with the number of bytes of each part that is handed over.

        Raises OSError where the disk refuses; or as `write_parts`.
        """
        with path.open("rb") as source:
            self.write_parts(_watched(iter(partial(source.read, PART_SIZE_BYTES), b""), on_part))

    def delete(self) -> None:
        """Remove the file, if there is one; blocks. Raises StorageError."""
        system, path = self.file_system()
        with contextlib.suppress(FileNotFoundError), self.errors("removing"):
            system.delete_file(path)

    def stat(self) -> StoredFile | None:
        """Its size and time of change; None where there is no file. Blocks. Raises StorageError."""
        system, path = self.file_system()
        with self.errors("looking"):
            found = _stored(self, system.get_file_info(path))
        if found is None:
            self.check_bucket()
        return found

    def files(self) -> list[StoredFile]:
        """All files below it, by address; none where there are none. Blocks.

        Raises:
            StorageError: The storage refuses, or does not answer.
        """
        from pyarrow import fs  # noqa: PLC0415 -- loads clients that most runs do not need.

        system, path = self.file_system()
        below = path.rstrip("/") + "/"
        with self.errors("listing"):
            selector = fs.FileSelector(path, recursive=True, allow_not_found=True)
            found = [
                _stored(self / info.path.removeprefix(below), info)
                for info in system.get_file_info(selector)
            ]
        if not found:
            self.check_bucket()
        return sorted((it for it in found if it), key=lambda it: it.location.address)

    def check_bucket(self) -> None:
        """For what was not found; blocks. Raises StorageError where its bucket is not there.

        One that may not be asked for is taken as there.
        """
        if self.scheme == "hdfs":
            return
        from pyarrow import fs  # noqa: PLC0415 -- as above.

        system, path = Location(f"{self.scheme}://{self.bucket}").file_system()
        with contextlib.suppress(*_refusals()):
            if system.get_file_info(path.rstrip("/")).type == fs.FileType.NotFound:
                raise self._no_bucket()

    def _no_bucket(self) -> StorageError:
        also = " and ".join(["the keys", *ENDPOINTS.get(self.scheme, ())[-1:]])
        reason = (
            f"bucket {self.bucket} does not exist, or is not visible with these keys; make it, or "
            f"check its name, {also}"
        )
        return StorageError(self.address, reason)

    @contextlib.contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """What pyarrow raises in the block comes out as ours, but for FileNotFoundError.

        That means a file: where there is no bucket, a StorageError says so.

        Args:
            doing: What is done, for the message: "reading".
        """
        try:
            yield
        except FileNotFoundError:
            self.check_bucket()
            raise
        except _refusals() as error:
            if "NO_SUCH_BUCKET" in str(error):
                raise self._no_bucket() from error
            why = explained(error, self.scheme, endpoint(self.scheme))
            raise StorageError(self.address, f"{doing}: {why}") from error


def place_of(text: str | Path) -> Path | Location:
    """A path of this machine, or an address; ``file://`` is a path.

    >>> place_of("runs/a"), place_of("file:///tmp/a%20b")
    (PosixPath('runs/a'), PosixPath('/tmp/a b'))
    >>> place_of("s3://bucket/runs/a/")
    Location(address='s3://bucket/runs/a')

    Raises:
        ConfigError: As `checked_address`.
    """
    found = checked_address(text)
    return Location(found) if isinstance(found, str) else found


def place_argument(name: str, value: object) -> Path | Location:
    """`value` as a place: a path (str or `pathlib.Path`), or an address. Raises ConfigError."""
    if isinstance(value, Location):
        return value
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        refuse(name, value, "a path (a str or a pathlib.Path), or an address (s3://BUCKET/KEY)")
    return place_of(text if isinstance(value, str) else Path(text))


def endpoint(scheme: str) -> str | None:
    """Where the storage is, if not at Amazon or Microsoft: as other tools find it."""
    return next(filter(None, map(os.environ.get, ENDPOINTS.get(scheme, ()))), None)


def _watched(parts: Iterator[bytes], on_part: OnPart) -> Iterator[bytes]:
    for part in parts:
        yield part
        on_part(len(part))


def _refusals() -> tuple[type[Exception], ...]:
    """What pyarrow raises where a storage refuses: of an unknown status, only its base class."""
    from pyarrow.lib import ArrowException  # noqa: PLC0415 -- as above.

    return ArrowException, OSError, ValueError, ImportError, NotImplementedError


def _stored(location: Location, info: Any) -> StoredFile | None:
    return StoredFile(location, info.size, info.mtime_ns) if info.is_file else None


@cache
def _s3(endpoint: str | None) -> Any:
    from pyarrow import fs  # noqa: PLC0415 -- as above.

    return fs.S3FileSystem(
        endpoint_override=endpoint,
        allow_delayed_open=True,  # A small file is one request.
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=REQUEST_TIMEOUT_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=MOST_ATTEMPTS),
    )


@cache
def _reached(scheme: str, bucket: str, _told: tuple[str | None, ...]) -> tuple[Any, str]:
    """A storage that answers, if only to refuse. Raises TimeoutError where it does not."""
    from pyarrow import fs  # noqa: PLC0415 -- as above.

    def contact() -> tuple[Any, str]:
        if scheme == "abfs":
            system, path = azure.file_system(bucket)
        else:
            limit = f"?retry_limit_seconds={RETRY_S:g}" if scheme == "gs" else ""
            system, path = fs.FileSystem.from_uri(f"{scheme}://{bucket}{limit}")
        with contextlib.suppress(*_refusals()):  # What is wanted of it is refused in its own words.
            system.get_file_info(f"{(path or bucket).rstrip('/')}/.distsgd")
        return system, path

    try:
        return within(CONTACT_TIMEOUT_S, f"{scheme}://{bucket}", contact)
    except TimeoutError as silence:
        way_out = "is it reached from here, and are its keys in the environment?"
        raise TimeoutError(f"{silence}; {way_out}") from None
