"""PyTorch: ``torch.optim.SGD`` on a sequence of linear layers, all threads of one process."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distsgd.experiments.peers.training import PeerTask, Table

_ACTIVATIONS = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh, "sigmoid": torch.nn.Sigmoid}


class TorchPeer:
    """See `Peer`."""

    def __init__(self, task: PeerTask, train: Table, test: Table) -> None:
        torch.set_num_threads(task.threads)
        torch.manual_seed(task.seed)
        self.version = torch.__version__
        self._batch = task.batch
        layers: list[Any] = []
        for inputs, outputs in zip(task.sizes, task.sizes[1:], strict=False):
            layer = torch.nn.Linear(inputs, outputs)
            torch.nn.init.xavier_uniform_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
            layers += [layer, _ACTIVATIONS[task.activation]()]
        self._network = torch.nn.Sequential(*layers[:-1])
        self._loss = torch.nn.CrossEntropyLoss()
        self._optimizer = torch.optim.SGD(
            self._network.parameters(),
            lr=task.rate,
            momentum=task.momentum,
            nesterov=task.nesterov and task.momentum > 0,
        )
        self._x, self._y = torch.from_numpy(train.x), torch.from_numpy(train.y)
        self._test_x, self._test_y = torch.from_numpy(test.x), torch.from_numpy(test.y)

    def train(self, rows: NDArray[np.int64]) -> None:
        """See `Peer.train`."""
        order = torch.from_numpy(rows)
        for first in range(0, len(rows), self._batch):
            part = order[first : first + self._batch]
            self._optimizer.zero_grad()
            self._loss(self._network(self._x[part]), self._y[part]).backward()
            self._optimizer.step()

    def evaluate(self) -> tuple[float, float]:
        """See `Peer.evaluate`."""
        with torch.no_grad():
            outputs = self._network(self._test_x)
            loss = self._loss(outputs, self._test_y).item()
            right = (outputs.argmax(1) == self._test_y).double().mean().item()
        return loss, right
