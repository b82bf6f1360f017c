"""What was found, in five sentences that a person would write, each with its figures. Pure.

They say, in this order: the fastest way to the target and what it is measured against; what a
second worker bought and at which batch sizes; why; what larger batches bought in steps; what is
not known. Before them stands what makes the rest worthless, if anything does.
"""

from __future__ import annotations

from distsgd.experiments.findings import Findings
from distsgd.experiments.report.verdicts.fastest import fastest
from distsgd.experiments.report.verdicts.learning import steps_saved
from distsgd.experiments.report.verdicts.unknown import unknown
from distsgd.experiments.report.verdicts.verdict import Verdict
from distsgd.experiments.report.verdicts.workers import bought, why

__all__ = ["Verdict", "alarms", "verdicts"]


def verdicts(findings: Findings) -> tuple[Verdict, ...]:
    """The alarms, then the five sentences."""
    five = (fastest, bought, why, steps_saved, unknown)
    return *alarms(findings), *(make(findings) for make in five)


def alarms(findings: Findings) -> tuple[Verdict, ...]:
    """What a reader must know before anything else; mostly nothing."""
    found = []
    if not findings.digests_equal:
        found.append(
            Verdict(
                f"Of {findings.num_digests} digests of weights not all are equal over the numbers "
                "of workers: learning depends on the workers here, which is a fault, and no time "
                "to target below can be trusted.",
                {"num_digests": findings.num_digests, "digests_equal": False},
                is_alarm=True,
            )
        )
    if findings.products_hold is False:
        runs = " · ".join(findings.products) or "no details were kept"
        found.append(
            Verdict(
                "Not all runs made in full lie within the interval that steps times seconds a step "
                f"gives, so the times to target below are not to be trusted: {runs}.",
                {"products": list(findings.products), "products_hold": False},
                is_alarm=True,
            )
        )
    return tuple(found)
