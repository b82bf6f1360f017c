"""JAX: a jitted step that gathers its rows from memory, all threads of one process."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from distsgd.experiments.peers.training import PeerTask, Table

_ACTIVATIONS: dict[str, Any] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
}


class JaxPeer:
    """See `Peer`."""

    def __init__(self, task: PeerTask, train: Table, test: Table) -> None:
        self.version = jax.__version__
        self._batch = task.batch
        self._x, self._y = jnp.asarray(train.x), jnp.asarray(train.y)
        self._test_x, self._test_y = jnp.asarray(test.x), jnp.asarray(test.y)
        keys = jax.random.split(jax.random.key(task.seed), len(task.sizes))
        glorot = jax.nn.initializers.glorot_uniform()
        self._weights = [
            (glorot(key, (inputs, outputs), jnp.float32), jnp.zeros(outputs, jnp.float32))
            for key, inputs, outputs in zip(keys, task.sizes, task.sizes[1:], strict=False)
        ]
        self._velocity = jax.tree.map(jnp.zeros_like, self._weights)
        self._step, self._measure = _compiled(task)

    def train(self, rows: NDArray[np.int64]) -> None:
        """See `Peer.train`."""
        for first in range(0, len(rows), self._batch):
            part = rows[first : first + self._batch]
            self._weights, self._velocity = self._step(
                self._weights, self._velocity, self._x, self._y, part
            )
        jax.block_until_ready(self._weights)

    def evaluate(self) -> tuple[float, float]:
        """See `Peer.evaluate`."""
        loss, right = self._measure(self._weights, self._test_x, self._test_y)
        return float(loss), float(right)


def _compiled(task: PeerTask) -> tuple[Any, Any]:
    activation = _ACTIVATIONS[task.activation]
    rate, momentum, nesterov = task.rate, task.momentum, task.nesterov

    def outputs(weights: Any, x: Any) -> Any:
        *hidden, (last, bias) = weights
        for matrix, shift in hidden:
            x = activation(x @ matrix + shift)
        return x @ last + bias

    def loss(weights: Any, x: Any, y: Any) -> Any:
        logs = jax.nn.log_softmax(outputs(weights, x))
        return -jnp.take_along_axis(logs, y[:, None], 1).mean()

    def step(weights: Any, velocity: Any, x: Any, y: Any, rows: Any) -> Any:
        grad = jax.grad(loss)(weights, x[rows], y[rows])
        velocity = jax.tree.map(lambda v, g: momentum * v + g, velocity, grad)
        moved = jax.tree.map(lambda v, g: g + momentum * v if nesterov else v, velocity, grad)
        return jax.tree.map(lambda w, m: w - rate * m, weights, moved), velocity

    def measure(weights: Any, x: Any, y: Any) -> Any:
        return loss(weights, x, y), (outputs(weights, x).argmax(1) == y).mean()

    return jax.jit(step, donate_argnums=(0, 1)), jax.jit(measure)
