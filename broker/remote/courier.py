"""The threads of the repository process that keep the mirrors of remote repositories up to date.

One thread follows each repository: at the start until it is here, then, in mode poll, for ever. Another one fetches the
models that clients want loaded. What they have done goes into the queue of whoever looks at the files, who never waits
for a network.
"""

import queue
import threading
import time
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from broker.messages import DescribeModel, Log
from broker.remote.errors import RemoteError, reason
from broker.remote.events import Arrived, Fetched
from broker.remote.mirror import Mirror, Synced
from broker.remote.sources import Source, connect
from configs import pbtxt
from configs.errors import ConfigError
from configs.namespaces import bare_name
from configs.proto.schema import message
from configs.remote import Remote
from configs.server import ServerConfig

ATTEMPTS = 3
"""How often a start tries to get a model before it goes on without it."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60.0


class Courier:
    """Owns the mirrors. Without remote repositories it does nothing."""

    def __init__(
        self,
        config: ServerConfig,
        inbox: "queue.SimpleQueue[Any]",
        out: "queue.SimpleQueue[Any]",
        connect: Callable[[Remote], Source] = connect,
    ) -> None:
        """`inbox` hears of `Arrived` and `Fetched`, `out` gets lines for the log."""
        self._config = config
        self._inbox = inbox
        self._out = out
        cache = Path(config.repository_cache)
        self._mirrors = [Mirror(remote, cache, self._say, connect) for remote in config.remotes.values()]
        self._loads: queue.SimpleQueue[DescribeModel] = queue.SimpleQueue()

    def begin(self, at_start: Collection[str]) -> None:
        """Start the threads; `at_start` is what mode explicit begins with."""
        is_explicit = self._config.model_control_mode == "explicit"
        wanted = set(at_start) if is_explicit and set(at_start) != {"*"} else None
        for mirror in self._mirrors:
            threading.Thread(target=self._safely, args=(self._follow, mirror, wanted), daemon=True).start()
        if self._mirrors:
            threading.Thread(target=self._safely, args=(self._serve_loads,), daemon=True).start()

    def takes(self, wanted: DescribeModel) -> bool:
        """Whether the model has to be looked for elsewhere first; `Fetched` tells when that is done."""
        if not self._mirrors or wanted.archive or wanted.files:
            return False
        self._loads.put(wanted)
        return True

    # ------------------------------------------------------------------------------------------- following

    def _follow(self, mirror: Mirror, wanted: Collection[str] | None) -> None:
        synced = self._begin(mirror, wanted)
        self._inbox.put(Arrived(mirror.models, synced.failures))
        self._say("I", f"{mirror.remote}: {mirror}")
        mode, pause, told = self._config.model_control_mode, FIRST_PAUSE_SECONDS, ""
        while mode == "poll" or (mode == "none" and synced.failures):
            pause = self._config.repository_poll_secs if mode == "poll" else min(2 * pause, LONGEST_PAUSE_SECONDS)
            time.sleep(pause)
            before = synced.failures
            try:
                synced = self._sync(mirror, wanted if mode == "poll" else set(before))
            except (RemoteError, OSError) as error:
                if told != reason(error):
                    told = reason(error)
                    self._say("W", f"{mirror.remote}: {told}; what is served is unchanged")
                continue
            told = ""
            if synced.changed or synced.failures != before:
                self._inbox.put(Arrived(mirror.models, synced.failures))

    def _begin(self, mirror: Mirror, wanted: Collection[str] | None) -> Synced:
        """The first synchronisation: it is tried until the repository could be listed, here or once before."""
        pause, told, failed = FIRST_PAUSE_SECONDS, "", 0
        while True:
            try:
                synced = self._sync(mirror, wanted)
                failed += 1
                if not synced.failures or failed >= ATTEMPTS:
                    return synced
            except (RemoteError, OSError) as error:
                listed = mirror.last_listed
                if listed is not None:
                    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(listed))
                    self._say("W", f"{mirror.remote}: {reason(error)}; serving what was there at {when} UTC")
                    return Synced()
                if told != reason(error):
                    told = reason(error)
                    self._say("E", f"{mirror.remote}: {told}; the server is not ready until it can be read")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _sync(self, mirror: Mirror, wanted: Collection[str] | None) -> Synced:
        """Also what ensembles among those wanted are made of. Raises RemoteError, OSError."""

        def arrived(_name: str) -> None:
            self._inbox.put(Arrived(mirror.models, None))

        synced = mirror.sync(wanted, arrived)
        names = set(wanted or ())
        while more := {part for name in names for part in parts(mirror.models / name, self._config)} - names:
            names |= more
            also = mirror.sync(more, arrived)
            synced = Synced(synced.changed | also.changed, {**synced.failures, **also.failures})
        return synced

    # ------------------------------------------------------------------------------------------- loading

    def _serve_loads(self) -> None:
        while True:
            wanted = self._loads.get()
            self._inbox.put(Fetched(wanted, self._fetch(wanted.model)))

    def _fetch(self, model: str) -> str:
        """Get a model from wherever it is; why it could not be had."""
        model = bare_name(model)
        failures = {mirror: self._attempt(mirror, model) for mirror in self._mirrors}
        holders = [mirror for mirror in self._mirrors if mirror.holds(model)]
        if not holders and self._is_local(model):
            return ""
        return next(filter(None, (failures[mirror] for mirror in holders or self._mirrors)), "")

    def _attempt(self, mirror: Mirror, model: str) -> str:
        """Why a repository did not give its newest state of a model; "" also when it does not have it."""
        try:
            return self._sync(mirror, {model}).failures.get(model, "")
        except (RemoteError, OSError) as error:
            failure = f"{mirror.remote}: {reason(error)}"
            if not mirror.holds(model):
                return failure
            self._say("W", f"{failure}; model '{model}' is loaded as it was there last")
            return ""

    def _is_local(self, model: str) -> bool:
        local = [path for path in self._config.model_repository if path not in self._config.remotes]
        return any((path / model).is_dir() for path in local)

    # ------------------------------------------------------------------------------------------- edges

    def _say(self, level: str, text: str) -> None:
        self._out.put(Log(level, text))

    def _safely(self, run: Callable[..., None], *arguments: Any) -> None:
        try:
            run(*arguments)
        except BaseException:
            self._say("E", f"a remote repository is not followed any more: {traceback.format_exc()}")


def parts(directory: Path, config: ServerConfig) -> set[str]:
    """The models that an ensemble is made of; none of anything else, or of what cannot be read."""
    with suppress(ConfigError, OSError):
        custom = directory / "configs" / f"{config.model_config_name}.pbtxt"
        own = custom if config.model_config_name and custom.is_file() else directory / "config.pbtxt"
        if own.is_file():
            read = pbtxt.read(own, message("inference.ModelConfig"))
            scheduling = read.get("ensemble_scheduling")
            return {step.get("model_name") for step in scheduling.get("step")} if scheduling is not None else set()
    return set()
