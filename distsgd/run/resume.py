"""What is waited for and compared before an existing run is resumed, or made again.

Other data are never taken. Another numerics profile gives other bits: it is refused unless told,
and a run that was resumed under one says so in its record.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from distsgd.errors import NumericsError, RunError
from distsgd.parallel import numerics
from distsgd.run.run_files import LOCK_TIMEOUT_S
from distsgd.run.spec import RunSpec
from distsgd.store.checkpoint import CheckpointStore
from distsgd.store.run_directory import RunDirectory

Say = Callable[[str], None]
FREE_TIMEOUT_S = 30.0
ACCEPTED = "accepted_numerics"  # Profiles that a run was resumed under, in its environment.json.


def wait_until_free(run: RunDirectory, say: Say) -> None:
    """Leave a run alone that another process trains; one that was killed lets go soon. Blocks.

    Raises:
        RunError: It still has it after `FREE_TIMEOUT_S`.
    """
    holder = None if run.copy else run.holder()  # Of a lease, the one who takes it waits.
    if holder is not None:
        wait = f"waiting up to {FREE_TIMEOUT_S:.0f} s for it to end"
        say(f"{run.path}: process {holder} has this run; {wait}")
        with run.lock(FREE_TIMEOUT_S):
            pass


def check_replay(
    run: RunDirectory, run_spec: RunSpec, *, accept_numerics: bool = False
) -> tuple[str, ...]:
    """Before `run` is made again from its start.

    Returns:
        Why its record may not be what comes out; empty where the same bits must come out.

    Raises:
        RunError: The data have changed.
        NumericsError: This process computes other bits than those that began the run, and that is
            not accepted; or the run is portable, and this process is not.
    """
    config = run_spec.config
    numerics.require(config.train.numerics, has_own_model=config.model.has_factory)
    recorded = _recorded(run, run_spec)
    changed = _changed(_profile(run, recorded), run_spec)
    if changed and not accept_numerics:
        raise _refused(run, changed)
    doubts = [f"it is made again under another numerics profile: {changed}"] if changed else []
    doubts += [
        f"it was resumed under another numerics profile after step {entry['after_step']}"
        for entry in _accepted(run, recorded)
    ]
    return tuple(doubts)


def check_resume(run: RunDirectory, run_spec: RunSpec, *, accept_numerics: bool, say: Say) -> None:
    """Before `run` is resumed from its last checkpoint; its record gets what is accepted.

    Raises:
        RunError: The data have changed.
        NumericsError: This process computes other bits than the one that trained last, and that is
            not accepted.
    """
    recorded = _recorded(run, run_spec)
    after, written = (0, *CheckpointStore(run.checkpoints).steps())[-1], _accepted(run, recorded)
    # Nothing that was kept was computed under a profile that no checkpoint came after.
    accepted = [entry for entry in written if entry["after_step"] < after]
    changed = _changed(_profile(run, (accepted or (recorded,))[-1]), run_spec)
    if not changed:
        if accepted != written:
            _write_accepted(run, recorded, accepted)
        return
    if not accept_numerics:
        raise _refused(run, changed)
    say(
        f"WARNING: {run.place} is resumed after step {after} under another numerics profile, so "
        f"that other bits come out than without the break: {changed}; environment.json says so"
    )
    entry = {
        "after_step": after,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "numerics": _own_profile(run_spec),
    }
    _write_accepted(run, recorded, [*accepted, entry])


def _write_accepted(
    run: RunDirectory, recorded: dict[str, Any], accepted: list[dict[str, Any]]
) -> None:
    with run.lock(LOCK_TIMEOUT_S):
        run.write_json(run.environment_path, recorded | {ACCEPTED: accepted})
        run.publish()


def _recorded(run: RunDirectory, run_spec: RunSpec) -> dict[str, Any]:
    """What `run` says of its environment; RunError where its data were others."""
    recorded, now = run.read_json(run.environment_path), run_spec.manifest.digest
    if recorded.get("data_digest") != now:
        raise RunError(
            run.place,
            f"was made with other data (digest {recorded.get('data_digest')}, now {now}); "
            "restore the data, or train into another --run-dir",
        )
    return recorded


def _profile(run: RunDirectory, recorded: dict[str, Any]) -> dict[str, Any]:
    found = recorded.get("numerics")
    if not isinstance(found, dict):
        raise _damaged(run, "numerics is no object")
    return found


def _accepted(run: RunDirectory, recorded: dict[str, Any]) -> list[dict[str, Any]]:
    found = recorded.get(ACCEPTED, [])
    if not isinstance(found, list) or not all(
        isinstance(entry, dict) and type(entry.get("after_step")) is int for entry in found
    ):
        raise _damaged(run, f"{ACCEPTED} is no list of profiles with the step before each")
    return found


def _damaged(run: RunDirectory, what: str) -> RunError:
    return RunError(run.environment_path, f"{what}; restore the file, or train anew")


def _changed(then: dict[str, Any], run_spec: RunSpec) -> str:
    """What differs between a recorded profile and this process; "" where the bits do not."""
    now = _own_profile(run_spec)
    # Before 0.4 a record had the first alone; the last has a model of one's own alone.
    digests = ("probe", "operations", "model")
    if all(then.get(digest, now.get(digest)) == now.get(digest) for digest in digests):
        return ""
    before, after = _flat(then), _flat(now)
    return ", ".join(
        f"{key} {before.get(key)} (now {value})"
        for key, value in after.items()
        if before.get(key) != value
    )


def _own_profile(run_spec: RunSpec) -> dict[str, Any]:
    """That of this process, as a record has it."""
    return numerics.profile(run_spec.config.train.dtype, run_spec.model).to_dict()


def _flat(profile: dict[str, Any]) -> dict[str, Any]:
    """With what a model computes with among the rest."""
    own = profile.get("model")
    rest = {key: it for key, it in profile.items() if key != "model"}
    return rest | (
        {f"model's {key}": it for key, it in own.items()} if isinstance(own, dict) else {}
    )


def _refused(run: RunDirectory, changed: str) -> NumericsError:
    model = "model's" in changed
    framework = ", ATEN_CPU_CAPABILITY what PyTorch uses of it" if model else ""
    return NumericsError(
        f"{run.place} was made under another numerics profile, other bits would come out: "
        f"{changed}; use that {'numpy, that framework' if model else 'numpy'} and processor kind "
        f"(OPENBLAS_CORETYPE sets the kernel{framework}), train "
        'into another --run-dir (with [train] numerics = "portable" machines agree), or let train '
        "--resume auto or verify take other bits with --accept-numerics"
    )
