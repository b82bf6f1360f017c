"""What an actor says of errors on its node."""

from __future__ import annotations

from socket import gethostname

import pytest

from distsgd.errors import PublishError, StorageError
from distsgd.parallel.launch.actors.processes import _naming_this_node


@pytest.mark.parametrize("kind", [StorageError, PublishError])
def test_what_storage_refuses_is_named_with_the_node_and_stays_what_it_is(
    kind: type[StorageError],
) -> None:
    said = rf"^s3://b/a: refused \(on node {gethostname()}; "
    with pytest.raises(StorageError, match=said) as caught, _naming_this_node():
        raise kind("s3://b/a", "refused")
    assert type(caught.value) is kind
