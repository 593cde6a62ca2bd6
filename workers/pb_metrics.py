"""Custom metrics of `triton_python_backend_utils`: families of counters, gauges and histograms."""

from collections.abc import Sequence
from enum import IntEnum

from broker.messages import Answer, ChangeMetric, DeclareMetric, DropMetric, ErrorCode, GetMetricValue
from workers.pb_errors import TritonModelException, check_text
from workers.pb_server import server


class MetricKind(IntEnum):
    """What a family's metrics are."""

    COUNTER = 0
    GAUGE = 1
    HISTOGRAM = 2


class _Family:
    """The part of a family that its metrics know, too."""

    def __init__(self, name: str, kind: MetricKind) -> None:
        self.name = name
        self.kind = kind
        self.is_alive = True


class Metric:
    """One time series; metrics of one family with the same labels are the same, in all models and instances."""

    def __init__(self, family: _Family, labels: dict[str, str], buckets: Sequence[float]) -> None:
        """Models get it from their family. Raises TritonModelException."""
        self._family = family
        self._labels = labels
        self._is_declared = False
        _declare("create metric", family, "", labels, buckets)
        self._is_declared = True

    def increment(self, value: float) -> None:
        """Add to a counter (nothing negative) or gauge. Raises TritonModelException."""
        what = "increment metric value"
        kind = self._family.kind
        if kind is MetricKind.HISTOGRAM:
            raise _failure(what, "TRITONSERVER_METRIC_KIND_HISTOGRAM does not support Increment")
        if kind is MetricKind.COUNTER and value < 0:
            text = "TRITONSERVER_METRIC_KIND_COUNTER can only be incremented monotonically by non-negative values."
            raise _failure(what, text)
        self._change("increment", what, value)

    def set(self, value: float) -> None:
        """Set a gauge. Raises TritonModelException."""
        what = "set metric value"
        if self._family.kind is not MetricKind.GAUGE:
            raise _failure(what, f"TRITONSERVER_METRIC_KIND_{self._family.kind.name} does not support Set")
        self._change("set", what, value)

    def observe(self, value: float) -> None:
        """Count a value in a histogram. Raises TritonModelException."""
        what = "observe metric value"
        if self._family.kind is not MetricKind.HISTOGRAM:
            raise _failure(what, f"TRITONSERVER_METRIC_KIND_{self._family.kind.name} does not support Observe")
        self._change("observe", what, value)

    def value(self) -> float:
        """The value of a counter or gauge, which others may change, too. Raises TritonModelException."""
        what = "get metric value"
        if self._family.kind is MetricKind.HISTOGRAM:
            raise _failure(what, "TRITONSERVER_METRIC_KIND_HISTOGRAM does not support Value")
        self._check_alive(what)
        name, labels = self._family.name, self._labels
        answer = server.ask(lambda number: GetMetricValue(number, name, labels))
        _raise_for(answer, what)
        return float(answer.content)

    def __del__(self) -> None:
        """The series ends with the last metric that is it."""
        if self._is_declared and self._family.is_alive:
            server.tell(DropMetric(self._family.name, self._labels))

    def _change(self, operation: str, what: str, value: float) -> None:
        self._check_alive(what)
        server.tell(ChangeMetric(self._family.name, self._labels, operation, float(value)))

    def _check_alive(self, what: str) -> None:
        if not self._family.is_alive:
            raise TritonModelException(
                f"Failed to {what}: Invalid metric operation as the corresponding 'MetricFamily' has been deleted. The "
                "'MetricFamily' object should be deleted AFTER its corresponding 'Metric' objects have been deleted."
            )


class MetricFamily:
    """Metrics of one name; families of one name and kind are the same, in all models and instances."""

    COUNTER = MetricKind.COUNTER
    GAUGE = MetricKind.GAUGE
    HISTOGRAM = MetricKind.HISTOGRAM

    def __init__(self, name: str, description: str, kind: MetricKind) -> None:
        """The first description of a name counts. Raises TritonModelException."""
        check_text(name)
        check_text(description)
        self._family = _Family(name, MetricKind(kind))
        self._family.is_alive = False
        _declare("create metric family", self._family, description, None, ())
        self._family.is_alive = True

    def Metric(self, labels: dict[str, str] | None = None, buckets: Sequence[float] | None = None) -> Metric:
        """A metric with these labels; a histogram needs the ascending bounds of its buckets.

        Raises TritonModelException.
        """
        for text in (entry for pair in (labels or {}).items() for entry in pair):
            check_text(text)
        if (self._family.kind is MetricKind.HISTOGRAM) != (buckets is not None):
            raise _failure("create metric", "Buckets are for histograms, which need them")
        return Metric(self._family, dict(labels or {}), buckets or ())

    def __del__(self) -> None:
        """Its metrics are of no use any more."""
        if self._family.is_alive:
            self._family.is_alive = False
            server.tell(DropMetric(self._family.name, None))


def _declare(
    what: str, family: _Family, description: str, labels: dict[str, str] | None, buckets: Sequence[float]
) -> None:
    bounds = tuple(float(bound) for bound in buckets)
    kind = family.kind.name.lower()
    _raise_for(server.ask(lambda number: DeclareMetric(number, family.name, kind, description, labels, bounds)), what)


def _raise_for(answer: Answer, what: str) -> None:
    if answer.code != ErrorCode.OK:
        raise _failure(what, answer.error)


def _failure(what: str, reason: str) -> TritonModelException:
    return TritonModelException(
        f"Failed to {what}: Failed to process the request for model '{server.instance}', message: {reason}"
    )
