"""What travels through each transport: requests, weights, partials, replies."""

from __future__ import annotations

from time import monotonic

import numpy as np
import pytest

from distsgd.parallel.messages import ComputeRequest, RequestKind, Sums, WorkerInfo
from distsgd.parallel.transport import shared_memory
from distsgd.parallel.transport.interface import (
    Joined,
    Lost,
    Replied,
    Transport,
)
from tests.contract.transports import (
    LAYOUT,
    PATIENCE_S,
    SAMPLER,
    Place,
    Served,
    answer,
    reply_to,
    request_for,
    until,
)
from tests.fakes import NUM_TEST_ROWS, FakeWorker, block_gradient

pytestmark = pytest.mark.skipif(not shared_memory.is_available(), reason="needs memfd (Linux)")


def test_partials_are_those_of_the_request_at_the_weights_of_its_time(served: Transport) -> None:
    for step in range(3):
        served.weights[:] = np.arange(LAYOUT.num_parameters) * (step + 1)
        for first, block in enumerate(SAMPLER.partition(step).blocks):
            reply = answer(served, request_for(step, first, first + 1))
            gradient_P, sums = block_gradient(served.weights, step, block)
            assert reply.nodes == (sums,)
            assert served.partials(0)[0].tobytes() == gradient_P.tobytes()


def test_request_of_many_blocks_gives_a_partial_for_each_node(served: Transport) -> None:
    slots = np.zeros((LAYOUT.num_slots, LAYOUT.num_parameters), LAYOUT.dtype)
    fake = FakeWorker(SAMPLER)
    fake.attach(served.weights, slots)
    last = len(SAMPLER.partition(0).blocks)
    for first in range(last):
        asked = request_for(0, first, max(first + 1, last - 1))
        reply, expected = answer(served, asked), fake.compute(asked)
        assert reply.nodes == expected.nodes
        num_nodes = len(reply.nodes)
        assert served.partials(0)[:num_nodes].tobytes() == slots[:num_nodes].tobytes()


def test_evaluation_brings_sums_without_partials(served: Transport) -> None:
    blocks = SAMPLER.blocking.evaluation(NUM_TEST_ROWS).blocks
    for first in range(len(blocks)):
        reply = answer(served, request_for(0, first, len(blocks), RequestKind.EVALUATE))
        assert sum(node.num_samples for node in reply.nodes) == NUM_TEST_ROWS - blocks[first].first


@pytest.mark.parametrize("spin_s", [0.0, 0.005, 5.0])
def test_wait_without_anything_to_happen_ends_in_time(served: Transport, spin_s: float) -> None:
    for timeout_s in (0.0, 0.01):
        started = monotonic()
        assert served.wait(timeout_s, spin_s=spin_s) == []
        assert monotonic() - started < PATIENCE_S


def test_worker_says_who_it_is_and_cannot_write_the_weights(
    place: Place, transport: Served
) -> None:
    channel, events = place.join(transport, 3)
    assert events == [Joined(3, FakeWorker(SAMPLER).describe(3))]
    assert channel.weights.shape == (LAYOUT.num_parameters,)
    assert channel.slots.shape == (LAYOUT.num_slots, LAYOUT.num_parameters)
    assert channel.weights.dtype == channel.slots.dtype == LAYOUT.dtype
    with pytest.raises(ValueError, match="read-only"):
        channel.weights[0] = 1


@pytest.mark.parametrize("spin_s", [0.0, 1.0])
def test_requests_and_replies_travel_whole(place: Place, transport: Served, spin_s: float) -> None:
    channel, _ = place.join(transport, 0)
    for step in range(3):
        asked = ComputeRequest(1, RequestKind.GRADIENT, 2**40 + step, 1, 2, 3, 4, spin=spin_s > 0)
        transport.weights[:] = step
        transport.send(0, asked)
        assert channel.receive(PATIENCE_S, spin_s=spin_s) == asked
        assert set(channel.weights) == {step}
        nodes = tuple(Sums(i, i / 3, i, i / 7, i / 9) for i in range(LAYOUT.num_slots))
        channel.slots[:] = np.arange(LAYOUT.num_slots)[:, None] + step
        channel.reply(reply_to(asked, nodes))
        assert until(transport, Replied) == [Replied(0, reply_to(asked, nodes))]
        assert np.array_equal(transport.partials(0), channel.slots)


def test_partials_stay_as_they_were_until_the_next_request(place: Place, transport: Served) -> None:
    channels = [place.join(transport, worker)[0] for worker in (0, 1)]
    for worker, channel in enumerate(channels):
        transport.send(worker, request_for(0))
        channel.slots[:] = worker + 1
        assert channel.receive(PATIENCE_S) == request_for(0)
        channel.reply(reply_to(request_for(0)))
        until(transport, Replied)
    channels[0].close()
    partials = transport.partials(0)
    until(transport, Lost)
    assert set(partials[0]) == {1}
    assert set(transport.partials(1)[0]) == {2}


@pytest.mark.parametrize("timeout_s", [0.0, 0.01])
def test_receive_without_a_request_ends_in_time(
    place: Place, transport: Served, timeout_s: float
) -> None:
    channel, _ = place.join(transport, 0)
    assert channel.receive(timeout_s) is None
    transport.send(0, request_for(0))
    assert channel.receive(PATIENCE_S) == request_for(0)


def test_description_is_what_the_worker_sent(place: Place, transport: Served) -> None:
    strange = WorkerInfo(0, "version ü", 2**40, "", '"', "", "")
    _, events = place.join(transport, 0, strange)
    assert events == [Joined(0, strange)]
