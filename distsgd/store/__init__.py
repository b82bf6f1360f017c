"""What a run leaves on disk: its directory and lock, checkpoints, history, evaluations, digests.

Private (directories 0700, files 0600), atomic (written aside, synced, renamed), checked when read,
never pickle.
"""

from distsgd.base.files import read_json, write_bytes_atomic, write_json_atomic
from distsgd.store.checkpoint import Checkpoint, CheckpointStore
from distsgd.store.logs import (
    DigestChain,
    DigestLog,
    DigestRow,
    EvaluationLog,
    EvaluationRow,
    HistoryRow,
    HistoryWriter,
    read_history,
    weights_digest,
)
from distsgd.store.run_directory import RunDirectory

__all__ = [
    "Checkpoint",
    "CheckpointStore",
    "DigestChain",
    "DigestLog",
    "DigestRow",
    "EvaluationLog",
    "EvaluationRow",
    "HistoryRow",
    "HistoryWriter",
    "RunDirectory",
    "read_history",
    "read_json",
    "weights_digest",
    "write_bytes_atomic",
    "write_json_atomic",
]
