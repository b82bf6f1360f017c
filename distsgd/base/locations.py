"""Addresses of files that are on no disk of this machine: object storage, through pyarrow.fs.

The one place that knows the schemes. An address is checked where it comes in; what it needs besides
(keys, region, endpoint) is found by pyarrow in the environment and in the usual files, is never
part of the address, and so is never written down.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from distsgd.base.settings import refuse
from distsgd.errors import StorageError, did_you_mean, first_line

SCHEMES = ("s3", "gs", "abfs", "hdfs")
_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 20.0  # Of silence; what moves is never cut off.
MOST_ATTEMPTS = 5  # Of one request that the storage refuses for a while (503, a reset).
_PIECE_SIZE_BYTES = 8 << 20


OnPiece = Callable[[int], None]


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
    def name(self) -> str:
        """What stands after the last slash."""
        return self.address.rpartition("/")[2]

    def file_system(self) -> tuple[Any, str]:
        """The `pyarrow.fs.FileSystem`, and the path in it.

        Raises:
            StorageError: There is none for this address.
        """
        with self.errors("connecting"):
            rest = self.address.partition("://")[2]
            if self.scheme == "s3":
                # As other tools find it, and pyarrow does from an address alone.
                return _s3(next(filter(None, map(os.environ.get, ENDPOINTS)), None)), rest
            root, _, key = rest.partition("/")
            system, path = _file_system_of(f"{self.scheme}://{root}")
            return system, f"{path.rstrip('/')}/{key}".lstrip("/") if path else f"{root}/{key}"

    def read_bytes(self) -> bytes:
        """The whole file; blocks.

        Raises:
            FileNotFoundError: It is not there.
            StorageError: The storage refuses, or does not answer.
        """
        system, path = self.file_system()
        with self.errors("reading"), system.open_input_stream(path, compression=None) as stream:
            data: bytes = stream.read()
            return data

    def write_bytes(self, data: bytes) -> None:
        """Write the whole file, in place of one that was there; blocks. Raises StorageError."""
        system, path = self.file_system()
        with self.errors("writing"):
            if self.scheme == "hdfs":
                system.create_dir(path.rpartition("/")[0], recursive=True)
            with system.open_output_stream(path, compression=None) as stream:
                stream.write(data)

    def copy_to(self, path: Path, on_piece: OnPiece = _is_unwatched) -> None:
        """Write the whole file to a new one of this machine; blocks.

        Args:
            path: Of the new file.
            on_piece: Called with the number of bytes of each piece that has come.

        Raises:
            FileNotFoundError: It is not there.
            StorageError: The storage refuses, or does not answer.
            OSError: The disk refuses.
        """
        system, there = self.file_system()
        with path.open("xb") as out, contextlib.ExitStack() as stack:
            with self.errors("reading"):
                stream = stack.enter_context(system.open_input_stream(there, compression=None))
            while True:
                with self.errors("reading"):
                    piece = stream.read(_PIECE_SIZE_BYTES)
                if not piece:
                    return
                out.write(piece)
                on_piece(len(piece))

    def copy_from(self, path: Path, on_piece: OnPiece = _is_unwatched) -> None:
        """Write a file of this machine here, in place of one that was there; blocks.

        Args:
            path: Of the file.
            on_piece: Called with the number of bytes of each piece that is handed over.

        Raises:
            StorageError: The storage refuses, or does not answer.
            OSError: The disk refuses.
        """
        system, there = self.file_system()
        with path.open("rb") as source, contextlib.ExitStack() as stack:
            with self.errors("writing"):
                if self.scheme == "hdfs":
                    system.create_dir(there.rpartition("/")[0], recursive=True)
                stream = stack.enter_context(system.open_output_stream(there, compression=None))
            while piece := source.read(_PIECE_SIZE_BYTES):
                with self.errors("writing"):
                    stream.write(piece)
                on_piece(len(piece))
            with self.errors("writing"):
                stream.close()

    def delete(self) -> None:
        """Remove the file, if there is one; blocks. Raises StorageError."""
        system, path = self.file_system()
        with contextlib.suppress(FileNotFoundError), self.errors("removing"):
            system.delete_file(path)

    def stat(self) -> StoredFile | None:
        """Its size and time of change; None where there is no file. Blocks. Raises StorageError."""
        system, path = self.file_system()
        with self.errors("looking"):
            return _stored(self, system.get_file_info(path))

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
        return sorted((it for it in found if it), key=lambda it: it.location.address)

    @contextlib.contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """What pyarrow raises in the block comes out as ours, but for FileNotFoundError.

        Args:
            doing: What is done, for the message: "reading".
        """
        try:
            yield
        except FileNotFoundError:
            raise
        except (OSError, ValueError, ImportError, NotImplementedError) as error:
            raise StorageError(self.address, f"{doing}: {first_line(error)}") from error


def place_of(text: str | Path) -> Path | Location:
    """A path of this machine, or an address; ``file://`` is a path.

    >>> place_of("runs/a"), place_of("file:///tmp/a%20b")
    (PosixPath('runs/a'), PosixPath('/tmp/a b'))
    >>> place_of("s3://bucket/runs/a/")
    Location(address='s3://bucket/runs/a')

    Raises:
        ConfigError: The scheme is not known, there is no bucket, or the address says more than
            where the files are.
    """
    match = _ADDRESS.fullmatch(str(text)) if isinstance(text, str) else None
    if match is None:
        return Path(text)
    scheme, rest = match["scheme"], match["rest"]
    if scheme == "file":
        parts = urlsplit(str(text))
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            refuse("an address", text, "file:///PATH: of this machine, from its root")
        return Path(unquote(parts.path))
    if scheme not in SCHEMES:
        known = f"a path, or an address that begins with {', '.join(SCHEMES)} or file and ://"
        refuse("an address", text, known + did_you_mean(scheme, SCHEMES))
    root, _, key = rest.rstrip("/").partition("/")
    user, at, _ = root.rpartition("@")
    if at and (":" in user or scheme == "s3"):
        hidden = f"{scheme}://...@{rest.rpartition('@')[2]}"
        refuse("an address", hidden, "without keys in it (they come from the environment)")
    if "?" in rest or "#" in rest:
        rule = "without ? and # (an endpoint comes from the environment: AWS_ENDPOINT_URL)"
        refuse("an address", f"{scheme}://{rest.partition('?')[0]}...", rule)
    if not root or any(part in ("", ".", "..") for part in key.split("/") if key):
        refuse("an address", text, f"{scheme}://BUCKET/KEY, without empty parts, . and ..")
    return Location(f"{scheme}://{rest.rstrip('/')}")


def place_argument(name: str, value: object) -> Path | Location:
    """`value` as a place: a path (str or `pathlib.Path`), or an address. Raises ConfigError."""
    if isinstance(value, Location):
        return value
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        refuse(name, value, "a path (a str or a pathlib.Path), or an address (s3://BUCKET/KEY)")
    return place_of(text) if isinstance(value, str) else Path(text)


def _stored(location: Location, info: Any) -> StoredFile | None:
    return StoredFile(location, info.size, info.mtime_ns) if info.is_file else None


@functools.cache
def _s3(endpoint: str | None) -> Any:
    from pyarrow import fs  # noqa: PLC0415 -- as above.

    return fs.S3FileSystem(
        endpoint_override=endpoint,
        allow_delayed_open=True,  # A small file is one request.
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=REQUEST_TIMEOUT_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=MOST_ATTEMPTS),
    )


@functools.cache
def _file_system_of(root: str) -> tuple[Any, str]:
    from pyarrow import fs  # noqa: PLC0415 -- as above.

    found: tuple[Any, str] = fs.FileSystem.from_uri(root)
    return found
