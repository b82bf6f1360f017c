"""Two processes of PyTorch's DistributedDataParallel (gloo, a thread each) on one of `modules`.

As training does, each draws random rows from memory at every step. Prints the seconds of a step.
"""

import os
import socket
import subprocess
import sys
import time

RANK, PORT = "DDP_RANK", "DDP_PORT"
PROCESSES, ROUNDS, WARM_UP = 2, 5, 10


def step_s(kind: str, batch: int, steps: int) -> float:
    """Seconds of a step, the median over rounds of so many steps."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, __file__, kind, str(batch), str(steps)]
    ranks = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | threads | {RANK: str(rank), PORT: port},
        )
        for rank in range(PROCESSES)
    ]
    try:
        said, _ = ranks[0].communicate(timeout=600)
        ranks[1].communicate(timeout=60)
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    return float(said.split()[-1])


def train(kind: str, batch: int, steps: int) -> None:
    """One of the processes."""
    import torch  # noqa: PLC0415 -- the process that asks needs none.
    import torch.distributed as dist  # noqa: PLC0415
    from modules import MODULES, sample_losses  # noqa: PLC0415
    from rows import rows_of  # noqa: PLC0415
    from torch.nn.parallel import DistributedDataParallel  # noqa: PLC0415

    rank = int(os.environ[RANK])
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", rank=rank, world_size=PROCESSES, init_method=f"tcp://127.0.0.1:{os.environ[PORT]}"
    )
    torch.manual_seed(0)
    model = DistributedDataParallel(MODULES[kind]())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = map(torch.from_numpy, rows_of(kind))
    order, own = torch.randperm(len(x)), batch // PROCESSES

    def step(number: int) -> None:
        first = (number * batch + rank * own) % (len(x) - own + 1)
        rows = order[first : first + own]
        optimizer.zero_grad()
        sample_losses(model(x[rows]), y[rows]).mean().backward()
        optimizer.step()

    for number in range(WARM_UP):
        step(number)
    rounds = []
    for _ in range(ROUNDS):
        dist.barrier()
        began_s = time.perf_counter()
        for number in range(steps):
            step(number)
        dist.barrier()
        rounds.append((time.perf_counter() - began_s) / steps)
    if rank == 0:
        print(sorted(rounds)[ROUNDS // 2], flush=True)
    os._exit(0)  # gloo's own end aborts now and then.


if __name__ == "__main__":
    train(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
