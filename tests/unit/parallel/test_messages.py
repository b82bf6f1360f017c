from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from distsgd.parallel.messages import ComputeReply, ComputeRequest, RequestKind, Sums, WorkerInfo

UINT32 = st.integers(0, 2**32 - 1)
FLOAT = st.floats(allow_nan=False)
REQUESTS = st.builds(
    ComputeRequest,
    UINT32,
    st.sampled_from(RequestKind),
    st.integers(0, 2**64 - 1),
    UINT32,
    UINT32,
    UINT32,
    UINT32,
)
SUMS = st.builds(Sums, st.integers(0, 2**63 - 1), FLOAT, st.integers(0, 2**63 - 1), FLOAT, FLOAT)
REPLIES = st.builds(
    ComputeReply,
    UINT32,
    st.sampled_from(RequestKind),
    st.integers(0, 2**64 - 1),
    UINT32,
    UINT32,
    st.floats(0, 1e9, width=32),
    st.floats(0, 1e9, width=32),
    st.lists(SUMS, max_size=30).map(tuple),
)


@given(request=REQUESTS)
def test_request_comes_back_from_its_bytes(request: ComputeRequest) -> None:
    back = ComputeRequest.unpack(request.pack())
    assert back == request
    assert type(back.kind) is RequestKind


@given(reply=REPLIES)
def test_reply_comes_back_from_its_bytes(reply: ComputeReply) -> None:
    back = ComputeReply.unpack(reply.pack())
    assert back == reply
    assert type(back.kind) is RequestKind


@given(reply=REPLIES, data=st.data())
def test_reply_cut_short_is_refused(reply: ComputeReply, data: st.DataObject) -> None:
    packed = reply.pack()
    with pytest.raises(ValueError, match="are no reply"):
        ComputeReply.unpack(packed[: data.draw(st.integers(0, len(packed) - 1))])


@given(noise=st.binary(max_size=200))
@example(noise=bytes(35))
def test_noise_is_a_reply_or_a_value_error(noise: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(ComputeReply.unpack(noise), ComputeReply)


def test_reply_answers_its_request_only() -> None:
    request = ComputeRequest(1, RequestKind.GRADIENT, 7, 2, 5, 0, 3)
    reply = ComputeReply(1, RequestKind.GRADIENT, 7, 2, 5, 1.0, 2.0, ())
    assert reply.answers(request)
    assert reply.answers(request._replace(next_last=9))
    others = [
        request._replace(incarnation=2),
        request._replace(kind=RequestKind.EVALUATE),
        request._replace(step=6),
        request._replace(first=1),
        request._replace(last=6),
    ]
    assert not any(reply.answers(other) for other in others)


def test_description_comes_back_from_its_bytes() -> None:
    description = WorkerInfo(3, "1.2.3", 4567, "probe", "digest", "node", "numpy 2")
    assert WorkerInfo.unpack(description.pack()) == description


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe", b"[]", b"3", b"{}", json.dumps({"worker": 1}).encode()]
)
def test_what_is_no_description_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        WorkerInfo.unpack(data)
