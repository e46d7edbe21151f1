"""Rules about training, asked of an ensemble of finished runs: each of its members answers, from its own run folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shortrun.check.registry import Check
from shortrun.check.subject import Subject
from shortrun.check.verdict import Case, Finding


def finding_of(run: Subject, check: Check, values: Mapping[str, Any]) -> Finding:
    """What a check finds of a run; of an ensemble, where it is about training, what it finds of all members together.

    Broken where one member breaks it, unknown where one can't be judged. Raises UserError where a member's run is gone.
    """
    if not (check.of_training and run.manifest.get("members")):
        return check.judge(run, **values)
    found = [(member.folder.path.name, check.judge(member, **values)) for member in run.members]
    same = {finding for _, finding in found}
    if len(same) == 1:
        (finding,) = same
        return Finding(finding.verdict, f"each of {len(found)} members: {finding.evidence}")
    case, kept = Case(), list[str]()
    for name, finding in found:
        {"broken": case.against, "unknown": case.unsaid, "kept": kept}[finding.verdict].append(
            f"{name}: {finding.evidence}"
        )
    return case.finding("; ".join(kept))
