"""What a server with this configuration would serve, and why not, without starting anything.

Reads the repository as the repository process does. Ensembles are composed of the models that would be ready; what only
a loaded model can tell (tensors that its configuration does not declare) is taken to fit.
"""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from broker import lone
from broker.composition import Invalid, NotYet, compose
from broker.models import Model, Version, VersionState
from broker.rate_limiter import RateLimiter, Unsatisfiable
from configs import rate_limit
from configs.description import ModelDescription, TensorSpec
from configs.ensemble import resolved
from configs.errors import ConfigError
from configs.layout import list_models, version_directories
from configs.model import describe
from configs.server import ServerConfig


@dataclass(slots=True)
class Finding:
    """One model: what it is, if that can be told, and what is wrong with it. `is_wanted`: it is loaded at the start."""

    model: str
    path: str
    description: ModelDescription | None = None
    problems: list[str] = field(default_factory=list)
    is_wanted: bool = True

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the server would only warn about."""
        return self.description.warnings if self.description is not None else ()


def survey(config: ServerConfig, gpus: Sequence[str], lacking: Mapping[str, str]) -> list[Finding]:
    """Every model by name; `lacking` says which backends cannot work. Raises ConfigError without a repository."""
    with tempfile.TemporaryDirectory() as scratch:
        repositories = [lone.repository(path, Path(scratch)) for path in config.model_repository]
        return _survey(repositories, config, gpus, lacking)


def _survey(
    repositories: Sequence[Path], config: ServerConfig, gpus: Sequence[str], lacking: Mapping[str, str]
) -> list[Finding]:
    listed = list_models(repositories, config.entries, config.model_namespacing)
    shown = ", ".join(map(str, config.model_repository))
    found = {name: Finding(name, shown, problems=[error]) for name, error in listed.errors.items()}
    for name, directory in listed.directories.items():
        found[name] = _described(name, directory, config, gpus, lacking)
        described = found[name].description
        if described is not None:
            found[name].description = resolved(described, listed.directories)
    _resources(found, RateLimiter(rate_limit.parse(config.rate_limit_resource)), config)
    for name, error in compositions(found.values()).items():
        found[name].problems.append(error)
    _mark_wanted(found, config)
    return [finding for _, finding in sorted(found.items())]


def _described(
    name: str, directory: Path, config: ServerConfig, gpus: Sequence[str], lacking: Mapping[str, str]
) -> Finding:
    try:
        description = describe(directory, config.entries.get(name), config, gpus, name=name)
    except ConfigError as error:
        return Finding(name, str(directory), problems=list(error.messages))
    problems = list(missing_files(description))
    if description.backend in lacking:
        problems.append(lacking[description.backend])
    return Finding(name, str(directory), description, problems)


def missing_files(description: ModelDescription) -> Iterable[str]:
    """The versions whose model file is not there; backends without a file of their own have none to miss."""
    filename = description.config.get("default_model_filename", "")
    versions, _ = version_directories(Path(description.path))
    for number in description.versions if filename else ():
        path = versions[number] / filename
        if not path.exists():
            yield f"version {number} of model '{description.name}' lacks its file '{path}'"


def _resources(found: Mapping[str, Finding], limiter: RateLimiter, config: ServerConfig) -> None:
    """What the rate limiter could never let execute."""
    for finding in found.values() if config.rate_limit != "off" else ():
        description = finding.description
        if description is None:
            continue
        try:
            limiter.check(description.name, description.instances)
        except Unsatisfiable as error:
            finding.problems.append(str(error))
            continue
        for number in description.versions:
            limiter.admit(Version.create(description, number), description.instances)


def compositions(findings: Iterable[Finding]) -> dict[str, str]:
    """What is wrong with ensembles, by name, when the other models are loaded as far as they can be. Pure."""
    findings = list(findings)
    models = {finding.model: _model(finding, _mapped(findings, finding.model)) for finding in findings}
    coming = [v for m in models.values() for v in m.versions.values() if v.state is VersionState.LOADING]
    is_news = True
    while is_news:
        is_news = False
        for version in [v for v in coming if v.state is VersionState.LOADING]:
            try:
                version.graph = compose(version.description, models, is_complete=True).graph
            except NotYet:
                continue
            except Invalid as error:
                version.state = VersionState.UNAVAILABLE
                models[version.model].failures[version.number] = str(error)
            else:
                version.description = replace(version.description, decoupled=bool(version.graph.decoupled))
                version.state = VersionState.READY
            is_news = True
    return {name: next(iter(m.failures.values())) for name, m in models.items() if m.failures}


def _mapped(findings: Iterable[Finding], model: str) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs that ensembles take a model to have."""
    steps = [s for f in findings if f.description is not None for s in f.description.steps if s.model == model]
    names = ({name for s in steps for name, _ in s.inputs}, {name for s in steps for name, _ in s.outputs})
    inputs, outputs = (tuple(TensorSpec(name, "", None) for name in sorted(each)) for each in names)
    return inputs, outputs


def _model(finding: Finding, mapped: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]) -> Model:
    description = finding.description
    if description is None or finding.problems:
        return Model(finding.model, rejected="; ".join(finding.problems))
    model = Model(finding.model, description)
    for number in description.versions:
        version = model.versions[number] = Version.create(description, number)
        if not description.steps:
            version.state = VersionState.READY
            inputs, outputs = version.signature.inputs or mapped[0], version.signature.outputs or mapped[1]
            version.signature = version.signature._replace(inputs=inputs, outputs=outputs)
    return model


def _mark_wanted(found: dict[str, Finding], config: ServerConfig) -> None:
    """What mode explicit loads at the start: the models that are named, and what ensembles among them need."""
    if config.model_control_mode != "explicit" or config.load_model == ("*",):
        return
    wanted: set[str] = set()
    way = list(config.load_model)
    for name in way:
        if name not in found:
            found[name] = Finding(name, "", problems=[f"there is no directory '{name}' in the model repository"])
        description = found[name].description
        if name not in wanted and description is not None:
            way += [step.model for step in description.steps if step.model in found]
        wanted.add(name)
    for finding in found.values():
        finding.is_wanted = finding.model in wanted
