"""Azure's object storage through pyarrow.fs, which by itself looks for no account key.

The key, and another endpoint (of an emulator), come from the variables that obstore reads as well.
Where there is no key, pyarrow looks for an identity (``AZURE_CLIENT_ID`` and the like).
"""

from __future__ import annotations

import functools
import os
import re
from typing import Any

RULE = "abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/KEY"
KEY, ENDPOINT = "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ENDPOINT"
_ROOT = re.compile(r"([^@]+)@([^.@]+)\.dfs\.core\.windows\.net")


def is_root(text: str) -> bool:
    """Is `text` what stands before the first slash of such an address?

    >>> is_root("rows@account.dfs.core.windows.net"), is_root("rows")
    (True, False)
    """
    return _ROOT.fullmatch(text) is not None


def file_system(root: str) -> tuple[Any, str]:
    """The `pyarrow.fs.FileSystem` of the account, and the container in it.

    Args:
        root: See `is_root`.

    Raises:
        ValueError: The key or the endpoint is none.
    """
    found = _ROOT.fullmatch(root)
    assert found is not None, "checked where the address came in"
    container, account = found.groups()
    return _account(account, os.environ.get(KEY), os.environ.get(ENDPOINT)), container


@functools.cache
def _account(name: str, key: str | None, endpoint: str | None) -> Any:
    from pyarrow import fs  # noqa: PLC0415 -- loads clients that most runs do not need.

    options = {}
    if endpoint:
        scheme, _, rest = endpoint.partition("://")
        for service in ("blob", "dfs"):
            options[f"{service}_storage_scheme"] = scheme
            options[f"{service}_storage_authority"] = rest.partition("/")[0]
    return fs.AzureFileSystem(name, account_key=key or None, **options)
