"""What a run would do, without making it. No I/O here."""

from __future__ import annotations

from dataclasses import dataclass

from distsgd.run.spec import RunSpec


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run would do.

    Attributes:
        rows: Rows to train on.
        test_rows: Rows that are held out.
        features: Numbers a row has.
        model: In a few words.
        outputs: Of the model.
        parameters: Of the model.
        batch_size: Rows of a mini-batch.
        steps_per_epoch: Updates in a pass over the rows.
        steps: Updates in all, unless the target ends it before.
        target: What ends it at the first evaluation that meets it; None for nothing.
        evaluate_every: Such as "10 steps"; None where no rows are held out.
        shuffle: How mini-batches are drawn.
        hot_bytes: Features that mini-batches are drawn from at a time.
        blocks_per_step: Blocks that a mini-batch is cut into.
        num_workers: Worker processes; 0 for none, None for as many as a cluster has room for.
        memory_per_process_bytes: About what a process needs.
        warnings: What is allowed but probably not meant.
    """

    rows: int
    test_rows: int
    features: int
    model: str
    outputs: int
    parameters: int
    batch_size: int
    steps_per_epoch: int
    steps: int
    target: str | None
    evaluate_every: str | None
    shuffle: str
    hot_bytes: int
    blocks_per_step: int
    num_workers: int | None
    memory_per_process_bytes: int
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, run_spec: RunSpec) -> DryRun:
        """What the run of `run_spec` would do."""
        sampler, manifest, model = run_spec.sampler, run_spec.manifest, run_spec.model
        return cls(
            rows=manifest.train_rows,
            test_rows=manifest.test_rows,
            features=manifest.num_features,
            model=model.outline,
            outputs=model.num_outputs,
            parameters=model.num_parameters,
            batch_size=sampler.batch_rows,
            steps_per_epoch=sampler.steps_per_epoch,
            steps=run_spec.total_steps,
            target=run_spec.config.train.target,
            evaluate_every=str(run_spec.evaluation_grid) if manifest.test_rows else None,
            shuffle=str(sampler.describe()["shuffle"]),
            hot_bytes=run_spec.hot_bytes(),
            blocks_per_step=len(sampler.partition(0).blocks),
            num_workers=run_spec.num_workers,
            memory_per_process_bytes=run_spec.memory_per_process_bytes(),
            warnings=run_spec.warnings(),
        )
