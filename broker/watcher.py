"""What has changed in the repositories, and what the broker is to be told of it.

For the repository process, which calls it again and again: it reads files, but neither sockets nor clocks.
"""

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

from broker import lone
from broker.load_memory import LoadMemory
from broker.messages import (
    DescribeModel,
    LoadMeasured,
    Log,
    Message,
    ModelConsidered,
    ModelDescribed,
    ModelRejected,
    ModelRemoved,
    RepositoryListed,
    WatchRepository,
)
from broker.remote.events import Arrived
from broker.stillness import Stillness
from configs import archive, environment, layout, override
from configs import server as settings
from configs.description import ModelDescription
from configs.ensemble import resolved
from configs.errors import ConfigError
from configs.layout import Models, list_models
from configs.model import describe
from configs.namespaces import ambiguity, meant
from configs.server import ServerConfig
from configs.tree import Node

STILL_LOOKS = 2
"""Files of a model, which take longer to write, count when they have been still for so many looks."""
RESTLESS_LOOKS = 120
"""After so many looks at a model that never is still only an edit of its configuration counts."""

Stamp: TypeAlias = tuple[int, int, int] | None


class State(NamedTuple):
    """What changes when a model's directory does."""

    files: str
    configuration: tuple[Stamp, ...]
    entry: Node | None  # in server.pbtxt


class Watcher:
    """Knows what the broker was told about each model, and finds what has to be told next."""

    def __init__(
        self, config: ServerConfig, gpus: tuple[str, ...], scratch: Path, load_memory: LoadMemory | None = None
    ) -> None:
        """`scratch` is a directory for the files that load requests bring. `config` was read just now."""
        self._config = config
        self._gpus = gpus
        self._scratch = scratch
        self._entries: Mapping[str, Node] = config.entries
        self._directories: dict[str, Path] = {}
        self._names: frozenset[str] = frozenset()
        self._described: dict[str, ModelDescription] = {}
        self._rejected: dict[str, str] = {}
        read = [config.config_path] if config.config_path is not None else []
        self._acted_on = {file: stamp(file) for file in read}
        self._seen = dict(self._acted_on)
        self._models = Stillness()
        self._touched: set[Path] = set()  # model directories in which something has happened
        self._at_start = config.load_model  # mode explicit
        self._overridden: set[str] = set()  # models under a load request's configuration
        self._listed: RepositoryListed | None = None
        self._error = ""
        self._hidden = set(config.remotes)  # mirrors that nothing has come to yet
        self._coming = set(config.remotes)  # mirrors of which more is under way since the start
        self._missed: dict[Path, Mapping[str, str]] = {}  # by mirror: models whose newest state could not be had
        self._load_memory = load_memory or LoadMemory(None)

    def take_over(self, told: WatchRepository) -> None:
        """Go on where another process has died, whose clients have loaded and unloaded what they wanted."""
        if not told.is_first:
            self._at_start = told.models
            self._overridden = set(told.overridden)

    def scan(self, is_first: bool = False) -> list[Message]:
        """Look at the whole repository: all models at the start and in mode poll, else those with an entry."""
        found = self._find()
        if found is None:
            return self._complain()
        messages = self._list(found)
        takes_all, wanted = self._wanted(is_first)
        for name in wanted - {*found.directories, *self._directories, "*"} if not self._coming else ():
            found.errors.setdefault(name, f"there is no directory '{name}' in the model repository")
        messages += self._judge_missed(found)
        for name in [n for n in (*self._directories, *self._rejected) if n not in {*found.directories, *found.errors}]:
            if (takes_all or name not in self._directories) and name not in self._overridden:
                messages += self._miss(name)
        for name, error in found.errors.items():
            if takes_all or name in wanted:
                messages += self._reject(name, error)
        for name, directory in found.directories.items():
            if (takes_all or name in wanted) and name not in self._overridden:
                messages += self._find_again(name, directory, is_first)
        return sorted(messages, key=_is_of_ensemble)

    def arrived(self, news: Arrived) -> list[Message]:
        """Something has come from a remote repository, or could not be had."""
        is_first = not self.is_complete or self._config.model_control_mode == "none"
        self._hidden.discard(news.mirror)
        if news.failures is not None:
            self._coming.discard(news.mirror)
            self._missed[news.mirror] = news.failures
        return self.scan(is_first)

    @property
    def at_start(self) -> tuple[str, ...]:
        """What mode explicit begins with."""
        return self._at_start

    @property
    def is_complete(self) -> bool:
        """Whether everything has been looked at that there is at the start."""
        return not self._coming

    def _judge_missed(self, found: Models) -> list[Message]:
        """Models that could not be had are errors; where an older state is here it is served, or goes on serving."""
        messages: list[Message] = []
        for name, error in [item for failures in self._missed.values() for item in failures.items()]:
            directory = found.directories.get(name)
            if directory is None or not _holds_anything(directory):
                found.directories.pop(name, None)
                found.errors.setdefault(name, error)
            elif name in self._described:
                del found.directories[name]
                found.errors[name] = error
            else:
                messages.append(Log("W", f"model '{name}': {error}; an older state of it is served"))
        return messages

    def _miss(self, name: str) -> list[Message]:
        """A model is gone; one that mode poll has served may be about to be replaced."""
        if self._is_polled and name in self._directories:
            self._models.stir(name)
            return []
        return self._drop(name)

    def _find_again(self, name: str, directory: Path, is_first: bool) -> list[Message]:
        """Describe a model, or see to it later when it may be half written."""
        if not is_first and not self._is_still(name, directory):
            self._models.stir(name)
            return []
        self._directories[name] = directory
        return self._describe(name)

    @property
    def _is_polled(self) -> bool:
        return self._config.model_control_mode == "poll"

    def _is_still(self, name: str, directory: Path) -> bool:
        """It is as it was when it was described; what mode poll finds for the first time may grow yet."""
        taken = self._models.taken(name)
        return not self._is_polled if not isinstance(taken, State) else taken[:2] == self._state(name, directory)[:2]

    def _wanted(self, is_first: bool) -> tuple[bool, set[str]]:
        """Whether every model is to be served, and those that are by name."""
        config = self._config
        if config.model_control_mode == "explicit":
            at_start = self._at_start if is_first else ()
            return at_start == ("*",), {*self._directories, *at_start}
        takes_all = is_first or self._is_polled
        return takes_all, {*self._directories, *self._entries}

    def consider(self, wanted: DescribeModel, failure: str = "") -> list[Message]:
        """A client wants a model loaded, from the repository or as the request brings it.

        `failure`: why it could not be had from a remote repository.
        """
        name = wanted.model
        try:
            if failure:
                raise ConfigError(failure)
            if wanted.archive:
                messages = self._adopt(name, wanted.archive)
            else:
                is_override = bool(wanted.config or wanted.files)
                messages = self._override(wanted) if is_override else self._load_all(name)
        except (ConfigError, OSError) as error:
            return [Log("E", f"model '{name}' cannot be loaded: {error}"), ModelConsidered(name, str(error))]
        return [*messages, ModelConsidered(name, "")]

    def forget(self, name: str) -> None:
        """A client has unloaded a model."""
        self._drop(name)
        self._overridden.discard(name)

    def measured(self, message: LoadMeasured) -> None:
        """An instance has loaded; what load requests bring is not met again."""
        if Path(message.path).parent.parent != self._scratch:
            self._load_memory.measured(*message)

    def release(self, path: str) -> None:
        """Nothing is served from this model directory any more: if a load request brought it, it goes."""
        directory = Path(path)
        if directory.parent.parent == self._scratch:
            shutil.rmtree(directory.parent, ignore_errors=True)

    def _load_all(self, name: str) -> list[Message]:
        """Load every model that is meant. Raises ConfigError when one of several cannot be: none is, then."""
        names = meant(name, self._names)
        for each in names[1:]:
            self._read(self._locate(each), each)
        return [message for each in names for message in self._load(each)]

    def _load(self, name: str) -> list[Message]:
        directory = self._locate(name)
        self._models.take(name, self._state(name, directory))
        description = self._read(directory, name)
        self._overridden.discard(name)
        self._directories[name] = directory
        return [*self._load_parts(description, {name}), *self._tell(description)]

    def _read(self, directory: Path, name: str) -> ModelDescription:
        """Raises ConfigError."""
        return self._resolved(describe(directory, self._entries.get(name), self._config, self._gpus, name=name))

    def _resolved(self, ensemble: ModelDescription) -> ModelDescription:
        return resolved(ensemble, self._names)

    def _load_parts(self, ensemble: ModelDescription, seen: set[str], is_reload: bool = True) -> list[Message]:
        """In mode explicit the models of an ensemble are loaded with it; what is missing the broker tells.

        `is_reload`: those that are there already are looked at again. `seen` are the models that are looked at.
        """
        messages: list[Message] = []
        if self._config.model_control_mode != "explicit":
            return messages
        for name in [step.model for step in ensemble.steps]:
            if name in seen or name in self._overridden or (name in self._directories and not is_reload):
                continue
            seen.add(name)
            try:
                self._directories[name] = self._locate(name)
            except ConfigError:
                continue
            told = self._describe_alone(name, is_news=is_reload)
            messages += self._load_parts(self._described[name], seen, is_reload) if name in self._described else []
            messages += told
        return messages

    def _tell(self, description: ModelDescription) -> list[Message]:
        self._rejected.pop(description.name, None)
        self._described[description.name] = description
        expected = self._load_memory.expected(description)
        return [ModelDescribed(replace(description, load_byte_size=expected).to_wire())]

    def _override(self, wanted: DescribeModel) -> list[Message]:
        """Describe a model from the request's configuration. Raises ConfigError, OSError."""
        name = wanted.model
        if not wanted.config:
            raise ConfigError("Load parameter 'config' must be specified for model file override")
        if self._config.model_signature_key:
            raise ConfigError("only what is signed is loaded (--model-signature-key): a load request can bring nothing")
        config = override.from_json(wanted.config, name)
        directory = self._unpack(name, wanted.files) if wanted.files else self._locate(name)
        try:
            description = self._resolved(describe(directory, None, self._config, self._gpus, config))
        except ConfigError:
            self.release(str(directory))
            raise
        self._override_found(name)
        return [*self._load_parts(description, {name}), *self._tell(description)]

    def _adopt(self, name: str, path: str) -> list[Message]:
        """Describe a model that lies in an archive, whatever it is called there. Raises ConfigError, OSError."""
        directory = archive.model_directory(path, self._config.model_repository)
        description = describe(directory, None, self._config, self._gpus, name=name)
        self._override_found(name)
        return self._tell(description)

    def _override_found(self, name: str) -> None:
        """What lies in the repository under this name counts no more."""
        self._overridden.add(name)
        self._directories.pop(name, None)
        self._models.forget(name)

    def _unpack(self, name: str, files: Mapping[str, bytes]) -> Path:
        """A model directory of its own for the files of a load request. Raises ConfigError, OSError."""
        directory = Path(tempfile.mkdtemp(dir=self._scratch)) / name
        try:
            directory.mkdir()
            override.write_files(files, directory)
        except (ConfigError, OSError):
            self.release(str(directory))
            raise
        return directory

    def _locate(self, name: str) -> Path:
        """The model's directory in the repository. Raises ConfigError."""
        found = self._find()
        if found is None:
            raise ConfigError(self._error)
        ambiguous = ambiguity(name, found.directories)
        if ambiguous:
            raise ConfigError(ambiguous)
        if name not in found.directories:
            raise ConfigError(found.errors.get(name, f"there is no directory '{name}' in the model repository"))
        return found.directories[name]

    def _find(self) -> Models | None:
        try:
            config = self._config
            heeded = [path for path in config.model_repository if path not in self._hidden]
            repositories = [lone.repository(path, self._scratch) for path in heeded]
            entries = self._entries if not self._coming else None
            found = list_models(repositories, entries, config.model_namespacing)
        except (ConfigError, OSError) as error:
            self._error = str(error)
            return None
        self._error = ""
        self._names = frozenset(found.directories)
        return found

    def _complain(self) -> list[Message]:
        return [Log("E", self._error)]

    def _list(self, found: Models) -> list[Message]:
        listed = RepositoryListed(tuple(sorted({*found.directories, *found.errors})), found.errors)
        if listed == self._listed:
            return []
        self._listed = listed
        return [listed]

    def _drop(self, name: str) -> list[Message]:
        self._directories.pop(name, None)
        self._described.pop(name, None)
        self._rejected.pop(name, None)
        self._models.forget(name)
        return [ModelRemoved(name)]

    def touch(self, directories: Iterable[Path]) -> None:
        """Something has happened below these model directories: the next looks see what."""
        self._touched.update(directories)

    def look(self) -> list[Message]:
        """See whether server.pbtxt or a model has been edited, and has been still since."""
        found = self._find()
        self._load_memory.save()
        messages = self._list(found) if found is not None else []
        path = self._config.config_path
        if path is not None and self._is_edited(path):
            messages += self._reload_entries()
        if found is not None:
            if messages and self._config.model_namespacing:
                messages += self._describe_ensembles()
            self._stir({**self._directories, **found.directories})
            messages += self._settle(found.directories)
        return messages

    def _describe_ensembles(self) -> list[Message]:
        """Other models are there: steps may mean others."""
        ensembles = [name for name, each in self._described.items() if each.steps and name in self._directories]
        return [message for name in ensembles for message in self._describe(name)]

    def _stir(self, directories: Mapping[str, Path]) -> None:
        """What may have changed is restless: it was touched, or its configuration is another."""
        touched, self._touched = self._touched, set()
        for name, directory in directories.items():
            if name in self._overridden:
                continue
            taken = self._models.taken(name)
            is_edited = isinstance(taken, State) and taken.configuration != self._stamps(directory)
            if (directory in touched and self._is_polled) or (name in self._directories and is_edited):
                self._models.stir(name)

    def _settle(self, found: Mapping[str, Path]) -> list[Message]:
        """Describe what was restless and is still now; in mode poll, drop what is gone."""
        messages: list[Message] = []
        for name in self._models.restless:
            directory = found.get(name)
            state = self._state(name, directory) if directory is not None else None
            if not self._has_settled(name, state):
                if self._models.looks(name) != RESTLESS_LOOKS:
                    continue
                messages.append(Log("W", f"model '{name}' keeps changing: only its configuration is heeded"))
                if not _is_edit(self._models.taken(name), state):
                    continue
            if directory is not None:
                self._directories[name] = directory
                messages += self._describe(name)
            elif self._is_polled:
                messages += self._drop(name)
        return sorted(messages, key=_is_of_ensemble)

    def _has_settled(self, name: str, state: State | None) -> bool:
        taken = self._models.taken(name)
        has_same_files = isinstance(taken, State) and state is not None and taken.files == state.files
        return self._models.has_settled(name, state, looks=1 if has_same_files else STILL_LOOKS)

    def _state(self, name: str, directory: Path) -> State:
        return State(layout.files_fingerprint(directory), self._stamps(directory), self._entries.get(name))

    def _stamps(self, directory: Path) -> tuple[Stamp, ...]:
        return tuple([stamp(file) for file in self._files(directory)])

    def _reload_entries(self) -> list[Message]:
        try:
            entries, others = settings.reload_entries(self._config)
        except (ConfigError, OSError) as error:
            return [Log("E", f"{line}; nothing was changed") for line in str(error).splitlines()]
        messages: list[Message] = [
            Log("W", f"{self._config.config_path}: '{name}' has changed: that needs a restart") for name in others
        ]
        self._entries = entries
        return messages + self.scan()

    def _describe(self, name: str) -> list[Message]:
        """Tell the broker what a model is, and what an ensemble is made of, if that is news."""
        messages = self._describe_alone(name)
        described = self._described.get(name)
        return messages if described is None else [*self._load_parts(described, {name}, is_reload=False), *messages]

    def _describe_alone(self, name: str, is_news: bool = False) -> list[Message]:
        directory = self._directories[name]
        self._models.take(name, self._state(name, directory))
        try:
            description = self._read(directory, name)
        except ConfigError as error:
            return self._reject(name, str(error))
        is_news = is_news or name in self._rejected or self._described.get(name) != description
        return self._tell(description) if is_news else []

    def _reject(self, name: str, error: str) -> list[Message]:
        if self._rejected.get(name) == error:
            return []
        self._rejected[name] = error
        return [ModelRejected(name, error)]

    def _files(self, directory: Path) -> list[Path]:
        files = [directory / name for name in ("config.pbtxt", *environment.FILES)]
        if self._config.model_config_name:
            files.append(directory / "configs" / f"{self._config.model_config_name}.pbtxt")
        return files

    def _is_edited(self, file: Path) -> bool:
        """The file differs from when it was acted on, and has not changed since the last look."""
        now = stamp(file)
        last_look = self._seen.get(file, now)
        self._seen[file] = now
        if now == self._acted_on.setdefault(file, now) or now != last_look:
            return False
        self._acted_on[file] = now
        return True


def _is_edit(taken: object, state: State | None) -> bool:
    """The configuration has changed, whatever becomes of the files."""
    return isinstance(taken, State) and state is not None and taken[1:] != state[1:]


def _holds_anything(directory: Path) -> bool:
    try:
        return any(directory.iterdir())
    except OSError:  # it has just gone
        return False


def _is_of_ensemble(message: Message) -> bool:
    """What ensembles are made of is to be known before them."""
    return isinstance(message, ModelDescribed) and bool(message.description["steps"])


def stamp(file: Path) -> Stamp:
    """What changes when a file is written or replaced; None when it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
