"""Counts what a fuzz target was given and what it said."""

import hashlib
import re
from dataclasses import dataclass, field

_DETAILS = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\[[^\]]*\]|-?\d[\d.e+-]*")


@dataclass
class Tally:
    """One target's inputs, distinct after hashing, and texts, distinct but for names and numbers in them."""

    target: str
    hashes: set[bytes] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    answers: int = 0

    def add(self, data: bytes) -> None:
        """An input is about to be sent."""
        self.hashes.add(hashlib.blake2b(data, digest_size=16).digest())

    def heard(self, text: str) -> None:
        """An answer, or an error."""
        self.answers += 1
        self.texts.add(_DETAILS.sub("#", text[:300]))

    @property
    def inputs(self) -> int:
        """How many different inputs there were."""
        return len(self.hashes)


def table(tallies: list[Tally]) -> str:
    """One line for each target."""
    lines = [f"{'target':20} {'distinct inputs':>16} {'answers':>9} {'distinct texts':>15}"]
    rows = [(t.target, t.inputs, t.answers, len(t.texts)) for t in tallies]
    rows.append(
        ("all", sum(r[1] for r in rows), sum(r[2] for r in rows), len(set().union(*(t.texts for t in tallies))))
    )
    return "\n".join(
        [*lines, *(f"{name:20} {inputs:16} {answers:9} {texts:15}" for name, inputs, answers, texts in rows)]
    )
