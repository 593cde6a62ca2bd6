"""Counts how the golden cases of a run came out, for the line that pytest prints at the end."""

from collections import Counter

from tests.golden.differences import UNBUILT, Difference

_counts: Counter[str] = Counter()


def count(case: str, differs: bool, entry: Difference | None) -> None:
    """Note how a case came out."""
    if not differs:
        _counts["equal" if entry is None else f"equal but listed ({case})"] += 1
    elif entry is None:
        _counts["different"] += 1
    else:
        _counts["not built yet" if entry in UNBUILT else "better"] += 1


def line() -> str:
    """`golden: N requests, N equal ...`; empty when no case has run."""
    if not _counts:
        return ""
    listed = _counts["not built yet"] + _counts["better"]
    others = _counts.total() - _counts["equal"] - listed
    return (
        f"golden: {_counts.total()} requests, {_counts['equal']} equal, {listed} listed as different "
        f"({_counts['better']} by choice, {_counts['not built yet']} not built yet), {others} wrong"
    )
