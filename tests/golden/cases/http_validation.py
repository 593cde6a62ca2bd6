"""Requests that are well formed, for a model that does not want them; and which of several faults wins."""

from tests.golden.build import binary, fp32, infer, infer_path, one, output, post, tensor
from tests.golden.scenario import Scenario

FOUR = [1, 2, 3, 4]
A, B = tensor("A", "FP32", [1, 4], FOUR), tensor("B", "FP32", [1, 4], FOUR)
C = tensor("C", "FP32", [1, 4], FOUR)
FLAT_A, FLAT_B = tensor("A", "INT32", [4], FOUR), tensor("B", "INT32", [4], FOUR)
ONE = tensor("A", "INT32", [1, 2], [1, 2])

INPUTS: dict[str, tuple[str, list[dict[str, object]]]] = {
    "none": ("add_sub", []),
    "one_of_two": ("add_sub", [A]),
    "other_of_two": ("add_sub", [B]),
    "three_for_two": ("add_sub", [A, B, C]),
    "unknown_for_missing": ("add_sub", [A, C]),
    "only_unknown": ("add_sub", [C]),
    "duplicate": ("add_sub", [A, A]),
    "duplicate_and_all": ("add_sub", [A, B, A]),
    "duplicate_unknown": ("add_sub", [A, B, C, C]),
    "optional_none": ("optional", []),
    "optional_only": ("optional", [tensor("B", "INT32", [1, 2], [1, 2])]),
    "optional_unknown": ("optional", [ONE, C]),
    "optional_three": ("optional", [ONE, tensor("B", "INT32", [1, 2], [1, 2]), C]),
    "all_optional_unknown": ("types", [C]),
    "datatype": ("add_sub", [tensor("A", "INT32", [1, 4], FOUR), B]),
    "datatype_second": ("add_sub", [A, tensor("B", "FP64", [1, 4], FOUR)]),
    "datatype_bytes": ("add_sub", [tensor("A", "BYTES", [1, 4], ["a", "b", "c", "d"]), B]),
    "shape_without_batch": ("add_sub", [tensor("A", "FP32", [4], FOUR), tensor("B", "FP32", [4], FOUR)]),
    "shape_of_one": ("add_sub", [A, tensor("B", "FP32", [4], FOUR)]),
    "shape_dimension": ("add_sub", [tensor("A", "FP32", [1, 3], [1, 2, 3]), tensor("B", "FP32", [1, 3], [1, 2, 3])]),
    "shape_more_dimensions": ("add_sub", [tensor("A", "FP32", [1, 2, 2], FOUR), tensor("B", "FP32", [1, 2, 2], FOUR)]),
    "shape_empty": ("add_sub", [tensor("A", "FP32", [], [1]), tensor("B", "FP32", [], [1])]),
    "shape_empty_without_batching": ("add_sub_int32", [tensor("A", "INT32", [], [1]), FLAT_B]),
    "shape_zero_batch": ("add_sub", [tensor("A", "FP32", [0, 4], []), tensor("B", "FP32", [0, 4], [])]),
    "shape_without_batching": ("add_sub_int32", [tensor("A", "INT32", [1, 4], FOUR), FLAT_B]),
    "shape_variable_rank": ("matrix", [tensor("IN", "INT32", [4], FOUR)]),
    "shape_reshaped": ("reshape", [tensor("SQUARE", "FP32", [1, 2, 2], FOUR), tensor("SCALAR", "FP32", [1, 1], [1])]),
    "batches_differ": ("add_sub", [A, tensor("B", "FP32", [2, 4], FOUR + FOUR)]),
    "batch_too_large": ("add_sub", [tensor(n, "FP32", [9, 4], FOUR * 9) for n in "AB"]),
    "largest_batch": ("add_sub", [tensor(n, "FP32", [8, 4], FOUR * 8) for n in "AB"]),
    "batch_too_large_and_differing": ("add_sub", [tensor("A", "FP32", [9, 4], FOUR * 9), B]),
    "datatype_and_shape": ("add_sub", [tensor("A", "INT32", [1, 3], [1, 2, 3]), B]),
    "datatype_and_batch": ("add_sub", [tensor("A", "INT32", [9, 4], FOUR * 9), tensor("B", "FP32", [9, 4], FOUR * 9)]),
    "missing_and_datatype": ("add_sub", [tensor("A", "INT32", [1, 4], FOUR)]),
}
OUTPUTS = {
    "unknown": [output("NOPE")],
    "unknown_and_known": [output("SUM"), output("NOPE")],
    "empty_name": [output("")],
    "input_name": [output("A")],
    "twice": [output("SUM"), output("SUM")],
}
ORDER: dict[str, dict[str, object]] = {
    "output_before_input_count": {"inputs": [A], "outputs": [output("NOPE")]},
    "output_before_datatype": {"inputs": [tensor("A", "INT32", [1, 4], FOUR), B], "outputs": [output("NOPE")]},
    "id_before_inputs": {"id": 3, "inputs": "x"},
    "parameters_before_inputs": {"parameters": [], "inputs": "x"},
    "inputs_before_outputs": {"inputs": "x", "outputs": "y"},
    "data_before_name_of_the_next": {"inputs": [tensor("A", "FP32", [1, 4], [1]), {}]},
    "leftover_before_outputs": {"inputs": [tensor("A", "FP32", [1, 4], binary_data_size=8), B], "outputs": "y"},
}

SCENARIOS: list[Scenario] = [
    *[one(f"inputs {name}", infer(model, {"inputs": inputs})) for name, (model, inputs) in INPUTS.items()],
    *[
        one(f"inputs {name} with id", infer(INPUTS[name][0], {"id": "7", "inputs": INPUTS[name][1]}))
        for name in (
            "none",
            "one_of_two",
            "only_unknown",
            "datatype",
            "shape_dimension",
            "batch_too_large",
            "batches_differ",
        )
    ],
    *[
        one(f"outputs {name}", infer("add_sub", {"inputs": [A, B], "outputs": outputs}))
        for name, outputs in OUTPUTS.items()
    ],
    *[one(f"order {name}", infer("add_sub", document)) for name, document in ORDER.items()],
    one("order leftover", binary("add_sub", ORDER["leftover_before_outputs"], fp32(*FOUR))),
    one("order unknown_model_before_json", infer("nope", "{")),
    one("order unknown_version_before_json", infer("add_sub", "{", version="9")),
    one("order version_before_model", infer("nope", "{", version="99999999999999999999")),
    one("order encoding_before_json", post(infer_path("add_sub"), "{", "Content-Encoding: br")),
]
