"""scikit-learn: ``MLPClassifier.partial_fit``, one pass over the rows that it is given."""

from __future__ import annotations

import math

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier

from distsgd.experiments.peers.training import PeerTask, Table

_ACTIVATIONS = {"relu": "relu", "tanh": "tanh", "sigmoid": "logistic"}


class SklearnPeer:
    """See `Peer`."""

    def __init__(self, task: PeerTask, train: Table, test: Table) -> None:
        self.version = sklearn.__version__
        self._batch, self._train, self._test = task.batch, train, test
        self._classes = np.arange(task.sizes[-1])
        self._network = MLPClassifier(
            task.sizes[1:-1],
            activation=_ACTIVATIONS[task.activation],
            solver="sgd",
            alpha=0.0,
            batch_size=task.batch,
            learning_rate_init=task.rate,
            momentum=task.momentum,
            nesterovs_momentum=task.nesterov,
            shuffle=False,  # The rows come in the order of a permutation.
            random_state=task.seed % 2**32,
        )

    def train(self, rows: NDArray[np.int64]) -> None:
        """See `Peer.train`."""
        # What is left of an epoch may be smaller than a batch, which it would warn about.
        self._network.batch_size = min(self._batch, len(rows))
        try:
            with np.errstate(all="ignore"):
                self._network.partial_fit(
                    self._train.x[rows], self._train.y[rows], classes=self._classes
                )
        except ValueError:
            if not self._is_diverged():  # That it refuses to go on with.
                raise

    def evaluate(self) -> tuple[float, float]:
        """See `Peer.evaluate`."""
        with np.errstate(all="ignore"):
            shares = self._network.predict_proba(self._test.x)
        if not np.isfinite(shares).all():
            return math.nan, 0.0
        loss = float(log_loss(self._test.y, shares, labels=self._classes))
        return loss, float((shares.argmax(1) == self._test.y).mean())

    def _is_diverged(self) -> bool:
        weights = (*self._network.coefs_, *self._network.intercepts_)
        return not all(np.isfinite(array).all() for array in weights)
