"""How well a run says the next character, next to a 3-gram, and text of it.

    python gpt_sample.py RUN

Shape letters: N rows, S characters of a row and the one after it, C characters that exist.
"""

from __future__ import annotations

import sys

import numpy as np
import pyarrow.parquet as pq
import torch
from gpt_model import make
from numpy.typing import NDArray

from distsgd import Run

START, LENGTH, TEMPERATURE = "The ", 400, 0.8

Tokens = NDArray[np.int64]


def main(run: Run) -> None:
    """Print the losses on the held-out rows, then text."""
    data = run.config.data
    training_NS, held_out_NS = rows(data.paths[0]), rows(data.test_paths[0])
    characters = pq.read_schema(data.paths[0]).metadata[b"characters"].decode()
    three_gram = three_gram_loss(training_NS, held_out_NS, len(characters))
    print(f"held-out loss {run.evaluate().test_loss:.4f} nats a character; 3-gram {three_gram:.4f}")

    torch.set_num_threads(1)  # The matrices are small.
    places = held_out_NS.shape[1] - 1
    net, *_ = make(places, len(characters), **run.config.model.options)
    net.load_state_dict({name: torch.from_numpy(it.copy()) for name, it in run.weights.items()})
    print("\n" + text_of(net.eval(), characters, places))


def rows(path: str) -> Tokens:
    """The characters of each row and the one after it, ``[N, S]``."""
    table = pq.read_table(path)
    tokens, after = (np.array(table[name].to_pylist()) for name in ("tokens", "next"))
    return np.hstack([tokens, after[:, -1:]])


def three_gram_loss(training_NS: Tokens, held_out_NS: Tokens, num_characters: int) -> float:
    """Mean loss of a 3-gram in nats a character, of all but the first one of each held-out row.

    It is mixed with the 2-gram, that with the 1-gram, and that with equal chances: a beginning
    after which k different characters were seen, n times in all, gives k parts of n + k to the
    shorter one (Witten and Bell, 1991). The second character of a row has a 2-gram alone.
    """
    chances = [np.full(num_characters, 1 / num_characters)]
    for length in (1, 2, 3):
        counts = np.zeros([num_characters] * length)
        last = training_NS.shape[1] - length + 1
        np.add.at(counts, tuple(training_NS[:, i : i + last] for i in range(length)), 1)
        kinds = np.maximum((counts > 0).sum(axis=-1, keepdims=True), 1)
        chances.append((counts + kinds * chances[-1]) / (counts.sum(-1, keepdims=True) + kinds))
    _, _, two_gram, three_gram = chances
    x_SN = held_out_NS.T
    seconds, others = two_gram[x_SN[0], x_SN[1]], three_gram[x_SN[:-2], x_SN[1:-1], x_SN[2:]]
    return float(-np.log([seconds, *others]).mean())


def text_of(net: torch.nn.Module, characters: str, places: int) -> str:
    """`START`, and what `net` says comes after it, drawn by its probabilities."""
    chance = torch.Generator().manual_seed(0)
    tokens = [characters.index(it) for it in START]
    for _ in range(LENGTH):
        with torch.no_grad():
            scores_C = net(torch.tensor([tokens[-places:]]))[0, -1]
        probabilities_C = (scores_C / TEMPERATURE).softmax(dim=0)
        tokens.append(int(torch.multinomial(probabilities_C, 1, generator=chance)))
    return "".join(characters[it] for it in tokens)


if __name__ == "__main__":
    main(Run.open(*sys.argv[1:] or ["gpt"]))
