"""How long a block takes, forward and backward, without and with per-sample norms.

Next to each figure stands the same arithmetic in bare numpy, timed in turn, so that the ratios mean
something on a busy machine. Run with one BLAS thread: OPENBLAS_NUM_THREADS=1 python
scripts/bench/block.py --layers 784,128,10
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from distsgd.autodiff.program import BoundProgram
from distsgd.nn.layers import Dense
from distsgd.nn.network import Network

NETWORKS = ["784,30,10", "784,128,10", "784,512,512,10"]


def bound_program(sizes: list[int], rows: int, *, per_sample: bool) -> Callable[[], None]:
    """A forward and backward of the library."""
    layers = [Dense(n, "relu") for n in sizes[1:-1]] + [Dense(sizes[-1])]
    model = Network(layers, "softmax_cross_entropy", (sizes[0],))
    chance = np.random.default_rng(0)
    x_NI = chance.standard_normal((rows, sizes[0])).astype(np.float32)
    bound: BoundProgram = model.program(rows, np.float32, per_sample=per_sample).bind(
        x_NI,
        chance.integers(0, sizes[-1], rows),
        weights=model.initialise("glorot", 0, np.float32),
        gradients=np.empty(model.num_parameters, np.float32),
        x_squared_norms=np.vecdot(x_NI, x_NI),
    )

    def step() -> None:
        bound.forward()
        bound.backward()

    return step


def bare_step(sizes: list[int], rows: int) -> Callable[[], None]:
    """The same arithmetic with nothing around it."""
    chance, last = np.random.default_rng(0), len(sizes) - 1
    weights = [
        (chance.standard_normal((i, o)) / i**0.5).astype(np.float32) for i, o in pairwise(sizes)
    ]
    biases = [np.zeros(n, np.float32) for n in sizes[1:]]
    classes_N, at_N = chance.integers(0, sizes[-1], rows), np.arange(rows)
    outputs = [chance.standard_normal((rows, n)).astype(np.float32) for n in sizes]
    deltas = [np.empty((rows, n), np.float32) for n in sizes]
    gradients = [np.empty_like(w) for w in weights]

    def step() -> None:
        for i in range(last):
            z_NO = np.matmul(outputs[i], weights[i], out=outputs[i + 1])
            z_NO += biases[i]
            if i < last - 1:
                np.maximum(z_NO, np.float32(0), out=z_NO)
        d_NO = outputs[last]
        d_NO -= d_NO.max(1, keepdims=True)
        np.exp(d_NO, out=d_NO)
        d_NO /= d_NO.sum(1, keepdims=True)
        d_NO[at_N, classes_N] -= 1
        for i in range(last - 1, -1, -1):
            np.matmul(outputs[i].T, d_NO, out=gradients[i])
            d_NO.sum(0)
            if i:
                d_NO = np.matmul(d_NO, weights[i].T, out=deltas[i])
                d_NO *= outputs[i] > 0

    return step


def times_us(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Smallest of `rounds` times a step each, taken in turn."""
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(rounds):
        for name, step in steps.items():
            step()
            start = time.perf_counter()
            for _ in range(5):
                step()
            best[name] = min(best[name], (time.perf_counter() - start) / 5 * 1e6)
    return best


def main() -> None:
    """Prints one line a network and block size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", nargs="*", default=NETWORKS)
    parser.add_argument("--block", nargs="*", type=int, default=[256], help="rows a block")
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    for layers in args.layers:
        sizes = [int(n) for n in layers.split(",")]
        for rows in args.block:
            steps = {
                "bare": bare_step(sizes, rows),
                "plain": bound_program(sizes, rows, per_sample=False),
                "norms": bound_program(sizes, rows, per_sample=True),
            }
            us = times_us(steps, args.rounds)
            line = {"layers": layers, "block": rows} | {
                f"{name}_us": round(t, 1) for name, t in us.items()
            }
            line |= {"plain_to_bare": round(us["plain"] / us["bare"], 3)}
            print(json.dumps(line | {"norms_to_plain": round(us["norms"] / us["plain"], 3)}))


if __name__ == "__main__":
    main()
