"""`python -m broker --config server.pbtxt`: read the configuration, then serve until SIGTERM.

Installed as `tidepool` and `tritonserver`, too. `python -m broker run` executes one model without a server, `python -m
broker environments` is about the environments of Python models, `python -m broker check` and `python -m broker models`
say what would be served.
"""

import os
import sys

from configs import server as settings
from configs.errors import ConfigError


def main(arguments: list[str]) -> int:
    """Serve; the exit status."""
    if arguments[:1] == ["environments"]:
        os.execv(sys.executable, [sys.executable, "-P", "-m", "workers.environments", *arguments[1:]])
    try:
        if arguments[:1] == ["run"]:
            from broker import run  # noqa: PLC0415  # what it needs the server does not

            return run.main(arguments[1:])
        if arguments[:1] in (["check"], ["models"]):
            from broker import check  # noqa: PLC0415  # likewise

            return check.main(arguments)
        config = settings.load(arguments)
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"error: {error}\n".replace("\n", "\nerror: ").removesuffix("error: "))
        return 1
    from broker.listen import StartError  # noqa: PLC0415  # --help and mistakes answer before the fabric is imported
    from broker.server import Server  # noqa: PLC0415

    try:
        return Server(config, arguments).run()
    except (StartError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


def console() -> int:
    """`tidepool`, and `tritonserver` for those who start Triton by that name."""
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(console())
