"""Keeps metrics of its own."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Counts requests and shows the last number; the metrics' values come back."""

    def initialize(self, args):
        """One family of each kind, with labels."""
        labels = {"model": args["model_name"], "version": args["model_version"]}
        counters = pb_utils.MetricFamily(
            name="golden_requests", description="Requests of this model", kind=pb_utils.MetricFamily.COUNTER
        )
        gauges = pb_utils.MetricFamily(
            name="golden_number", description="The last number", kind=pb_utils.MetricFamily.GAUGE
        )
        self.families = [counters, gauges]  # as long as they are used
        self.requests = counters.Metric(labels=labels)
        self.number = gauges.Metric(labels=labels)
        lost = pb_utils.MetricFamily(name="golden_lost", description="Lost", kind=pb_utils.MetricFamily.COUNTER)
        self.lost = lost.Metric(labels=labels)

    def execute(self, requests):
        """One response for each request."""
        return [self.respond(request) for request in requests]

    def respond(self, request):
        """The numbers are kept as they came; 13 is for a metric whose family is gone."""
        array = pb_utils.get_input_tensor_by_name(request, "NUMBER").as_numpy()
        if array[0] == 13:
            self.lost.increment(1)
        self.requests.increment(float(array[0]))
        self.number.set(float(array[0]))
        array = array.copy()
        array[:] = [self.number.value()]
        return pb_utils.InferenceResponse([pb_utils.Tensor("SHOWN", array)])
