"""What the courier tells whoever looks at the files; a server without remote repositories imports nothing else."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from broker.messages import DescribeModel


class Arrived(NamedTuple):
    """Something has changed in a mirror, the directory of models; `failures` None: more is under way."""

    mirror: Path
    failures: Mapping[str, str] | None


class Fetched(NamedTuple):
    """What a client wants loaded is here as far as it can be; `error` says why it is not, "" when it is."""

    wanted: DescribeModel
    error: str
