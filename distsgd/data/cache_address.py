"""The cache on object storage, which many nodes read: each source with its options prepared once.

An entry is a prepared data set in a directory named after its key and its digest, and a small
object ``<key>.json``: which directory that is, and before, which process prepares it. Nothing is
ever removed from it.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import time
from dataclasses import asdict, dataclass, replace

from distsgd.base import leases
from distsgd.base.conditional import ConditionalObject, Superseded
from distsgd.base.files import decode_json
from distsgd.base.leases import Lease, Owned
from distsgd.base.locations import Location
from distsgd.data.cache import Say, cached, key_of
from distsgd.data.cache_directory import LOCK_TIMEOUT_S, MAX_CACHE_BYTES, DirectoryLock
from distsgd.data.manifest import MANIFEST_FILE
from distsgd.data.manifest_reader import read_manifest
from distsgd.data.options import PrepareOptions
from distsgd.data.prepare.prepare import Progress
from distsgd.data.sources.formats import PathSpec
from distsgd.data.upload import upload
from distsgd.errors import DataError

_DIRECTORY = re.compile(r"[0-9a-f]{32}-[0-9a-f]{16}")


def cached_at(
    sources: PathSpec,
    cache: Location,
    *,
    options: PrepareOptions,
    on_message: Say,
    on_progress: Progress | None = None,
    max_bytes: int = MAX_CACHE_BYTES,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> Location:
    """The address in `cache` of these files, prepared; blocks while they are prepared.

    That is done in the cache of this node, by one process at a time: others wait for it, and the
    first of them prepares in its place where it has gone. Should two do so all the same, as one
    that was stopped and continues or where the storage has no conditional writes, each uploads a
    whole data set, and the one that ends last is found from then on.

    Args:
        sources: As for `cached`, like those that follow.
        cache: A directory on object storage.
        options: How they are prepared.
        on_message: Called with what a person should know.
        on_progress: As of `prepare`.
        max_bytes: What the cache of this node may hold.
        lock_timeout_s: The longest wait for other processes that prepare the same.

    Raises StorageError where object storage refuses; or as `cached`.
    """
    key = key_of(sources, options)
    pointer = ConditionalObject(cache / f"{key}.json")
    found = _found_or_lease(pointer, cache, on_message, lock_timeout_s)
    if isinstance(found, Location):
        return found
    held: list[DirectoryLock] = []
    try:
        entry = cached(
            sources,
            options=options,
            cache_dir=None,
            on_message=on_message,
            on_progress=on_progress,
            max_bytes=max_bytes,
            lock_timeout_s=lock_timeout_s,
            held=held,
        )
        name = f"{key}-{read_manifest(entry).digest[:16]}"
        upload(entry, cache / name, on_message)
        with contextlib.suppress(Superseded):  # By one that will name its own, as whole as this.
            found.write(lambda it: replace(it, directory=name, owner=""))
    finally:
        found.end()
    return cache / name


def _found_or_lease(
    target: ConditionalObject, cache: Location, say: Say, timeout_s: float
) -> Location | Lease[_Pointer]:
    """Where the entry is, or the right to make it; blocks while another process makes it."""
    until = time.monotonic() + timeout_s
    waited_for, is_silent = "", False
    seen = target.read()
    while True:
        pointer = _Pointer() if seen is None else _Pointer.decoded(seen.data)
        there = cache / pointer.directory
        if pointer.directory and (there / MANIFEST_FILE).stat() is not None:
            return there
        if seen is None or not pointer.owner or is_silent:
            mine = _Pointer(owner=leases.own_name(), token=secrets.token_hex(8))
            with contextlib.suppress(Superseded):
                return Lease(target, mine, over=seen, decode=_Pointer.decoded)
            seen, is_silent = target.read(), False
            continue
        if time.monotonic() >= until:
            reason = (
                f"is still being prepared by process {pointer.owner} after {timeout_s:g} s; "
                "end that process, or wait"
            )
            raise DataError(target.location.address, reason)
        if pointer.owner != waited_for:
            waited_for = pointer.owner
            say(f"waiting for process {waited_for}, which prepares the same data into {cache}")
        now = leases.watch(target, seen, leases.LEASE_S)
        is_silent = now is not None and now.data == seen.data
        if is_silent:
            say(f"process {waited_for} has not been heard of for {leases.LEASE_S:g} s")
        seen = now


@dataclass(frozen=True, slots=True)
class _Pointer(Owned):
    """What ``<key>.json`` says.

    Attributes:
        directory: Of the prepared data set; "" for none.
    """

    directory: str = ""

    def encoded(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decoded(cls, data: bytes) -> _Pointer:
        """What `data` says; what is no pointer says nothing."""
        try:
            said = decode_json(data)
        except ValueError:
            said = None
        found = said if isinstance(said, dict) else {}
        owner, token, directory = (
            it if isinstance(it := found.get(key), str) else ""
            for key in ("owner", "token", "directory")
        )
        known = directory if _DIRECTORY.fullmatch(directory) else ""
        return cls(owner=owner, token=token, directory=known)
