"""System and CUDA shared memory over HTTP."""

import base64

from tests.golden.build import Json, fp32, get, infer, one, output, post, tensor
from tests.golden.scenario import Http, Memory, Scenario, Step

KEY = "/golden-00000000-http"
OTHER = "/golden-00000000-http-2"
FOUR = [1, 2, 3, 4]
ZEROS = tensor("B", "FP32", [1, 4], [0, 0, 0, 0])
UNREGISTER = post("/v2/systemsharedmemory/unregister")
HANDLE = base64.b64encode(bytes(64)).decode()


def register(body: Json, region: str = "r", kind: str = "system") -> Http:
    """Register a region."""
    return post(f"/v2/{kind}sharedmemory/region/{region}/register", body)


def status(region: str = "", kind: str = "system") -> Http:
    """What is registered."""
    return get(f"/v2/{kind}sharedmemory/{f'region/{region}/' if region else ''}status")


def with_region(name: str, *steps: Step, size: int = 64, data: bytes = fp32(*FOUR)) -> Scenario:
    """Steps between the registration of `r` and its end."""
    created = Memory("create", KEY, data.ljust(size, b"\0"))
    registered = register({"key": KEY, "byte_size": size})
    return one(name, created, registered, *steps, UNREGISTER, Memory("remove", KEY))


def region(**more: object) -> dict[str, object]:
    """Parameters of a tensor in `r`."""
    return {"shared_memory_region": "r", "shared_memory_byte_size": 16, **more}


def from_region(*outputs: object, shape: tuple[int, ...] = (1, 4), **more: object) -> Http:
    """A request to add_sub with A in the region."""
    return infer("add_sub", {"inputs": [tensor("A", "FP32", shape, **region(**more)), ZEROS], "outputs": list(outputs)})


def into_region(model: str = "add_sub", **more: object) -> Http:
    """A request to add_sub with SUM in the region."""
    return from_region(output("SUM", **region(**more)))


SCENARIOS: list[Scenario] = [
    one("status_of_nothing", status()),
    one("status_unknown", status("none")),
    one("cuda_status_of_nothing", status(kind="cuda")),
    one("cuda_status_unknown", status("none", "cuda")),
    one("unregister_unknown", post("/v2/systemsharedmemory/region/none/unregister")),
    one("cuda_unregister_unknown", post("/v2/cudasharedmemory/region/none/unregister")),
    one("unregister_all", UNREGISTER),
    one("register_without_region", post("/v2/systemsharedmemory/register", {"key": KEY, "byte_size": 4})),
    one("cuda_register_without_region", post("/v2/cudasharedmemory/register", {})),
    one("register_nothing", register("")),
    one("register_not_json", register("hello")),
    one("register_without_key", register({"byte_size": 4})),
    one("register_without_size", register({"key": KEY})),
    one("register_key_number", register({"key": 1, "byte_size": 4})),
    one("register_size_string", register({"key": KEY, "byte_size": "4"})),
    one("register_size_negative", register({"key": KEY, "byte_size": -4})),
    one("register_missing_object", register({"key": "/golden-00000000-none", "byte_size": 4})),
    one("register_slashes", register({"key": "///", "byte_size": 4})),
    one("register_path", register({"key": "/../etc/passwd", "byte_size": 4})),
    one("register_empty_key", register({"key": "", "byte_size": 4})),
    one("register_reserved", register({"key": "/triton_python_backend_shm_region_1", "byte_size": 4})),
    one("cuda_register_nothing", register("", kind="cuda")),
    one("cuda_register_empty", register({}, kind="cuda")),
    one("cuda_register_without_handle", register({"byte_size": 4, "device_id": 0}, kind="cuda")),
    one("cuda_register_without_b64", register({"raw_handle": {}, "byte_size": 4, "device_id": 0}, kind="cuda")),
    one("cuda_register_without_size", register({"raw_handle": {"b64": HANDLE}, "device_id": 0}, kind="cuda")),
    one("cuda_register_without_device", register({"raw_handle": {"b64": HANDLE}, "byte_size": 4}, kind="cuda")),
    one(
        "cuda_register_bad_base64", register({"raw_handle": {"b64": "!"}, "byte_size": 4, "device_id": 0}, kind="cuda")
    ),
    one(
        "cuda_register_short_handle",
        register({"raw_handle": {"b64": "AAAA"}, "byte_size": 4, "device_id": 0}, kind="cuda"),
    ),
    one("cuda_register", register({"raw_handle": {"b64": HANDLE}, "byte_size": 4, "device_id": 0}, kind="cuda")),
    with_region("register_and_look", status(), status("r"), status("r", "cuda"), status(kind="cuda")),
    with_region(
        "register_twice", register({"key": KEY, "byte_size": 64}), register({"key": KEY, "byte_size": 8}), status()
    ),
    with_region(
        "register_again_as_cuda", register({"raw_handle": {"b64": HANDLE}, "byte_size": 4, "device_id": 0}, kind="cuda")
    ),
    with_region(
        "register_second_name", register({"key": KEY, "byte_size": 8, "offset": 8}, "s"), status("s"), status()
    ),
    with_region("unregister_one", post("/v2/systemsharedmemory/region/r/unregister"), status(), status("r")),
    with_region("unregister_through_cuda", post("/v2/cudasharedmemory/region/r/unregister"), status("r")),
    with_region("unregister_all_cuda", post("/v2/cudasharedmemory/unregister"), status("r")),
    with_region(
        "register_beyond",
        register({"key": KEY, "byte_size": 5000}, "s"),
        register({"key": KEY, "byte_size": 64, "offset": 8}, "s"),
    ),
    with_region("register_without_slash", register({"key": KEY[1:], "byte_size": 64}, "s"), status("s")),
    with_region("input", from_region()),
    with_region("input_at_offset", from_region(shared_memory_offset=4)),
    with_region("input_twice", infer("add_sub", {"inputs": [tensor(n, "FP32", [1, 4], **region()) for n in "AB"]})),
    with_region(
        "input_bytes",
        infer(
            "identity_bytes",
            {"inputs": [tensor("IN", "BYTES", [1], shared_memory_region="r", shared_memory_byte_size=9)]},
        ),
        data=b"\5\0\0\0hello",
    ),
    with_region("input_size_mismatch", from_region(shared_memory_byte_size=12)),
    with_region("input_offset_beyond", from_region(shared_memory_offset=64)),
    with_region("input_size_beyond", from_region(shared_memory_offset=56)),
    with_region("input_whole_size_beyond", from_region(shared_memory_byte_size=65)),
    with_region("input_offset_negative", from_region(shared_memory_offset=-4)),
    with_region("input_size_huge", from_region(shared_memory_byte_size=2**63)),
    with_region("input_offset_huge", from_region(shared_memory_offset=2**64 - 8)),
    with_region("input_size_string", from_region(shared_memory_byte_size="16")),
    with_region(
        "input_without_size",
        infer("add_sub", {"inputs": [tensor("A", "FP32", [1, 4], shared_memory_region="r"), ZEROS]}),
    ),
    with_region(
        "input_region_number",
        infer(
            "add_sub",
            {"inputs": [tensor("A", "FP32", [1, 4], shared_memory_region=1, shared_memory_byte_size=16), ZEROS]},
        ),
    ),
    one("input_unknown_region", from_region()),
    with_region("output", into_region(shared_memory_offset=16), Memory("read", KEY)),
    with_region("output_over_input", into_region(), Memory("read", KEY)),
    with_region(
        "output_larger_region", into_region(shared_memory_offset=16, shared_memory_byte_size=48), Memory("read", KEY)
    ),
    with_region("output_too_small", into_region(shared_memory_byte_size=8)),
    with_region("output_offset_beyond", into_region(shared_memory_offset=64)),
    with_region("output_size_beyond", into_region(shared_memory_offset=56)),
    with_region("output_and_binary", from_region(output("SUM", binary_data=True, **region()))),
    with_region("output_and_classes", from_region(output("SUM", classification=1, **region()))),
    with_region(
        "output_one_of_two", from_region(output("DIFFERENCE"), output("SUM", **region(shared_memory_offset=16)))
    ),
    with_region(
        "output_bytes",
        infer(
            "identity_bytes",
            {
                "inputs": [tensor("IN", "BYTES", [1], ["hi"])],
                "outputs": [
                    output("OUT_IN", shared_memory_region="r", shared_memory_byte_size=32, shared_memory_offset=32)
                ],
            },
        ),
        Memory("read", KEY),
    ),
    one(
        "output_unknown_region",
        infer(
            "add_sub", {"inputs": [tensor("A", "FP32", [1, 4], FOUR), ZEROS], "outputs": [output("SUM", **region())]}
        ),
    ),
    one(
        "offset_of_region",
        Memory("create", OTHER, bytes(16) + fp32(*FOUR) + bytes(16)),
        register({"key": OTHER, "byte_size": 32, "offset": 16}),
        status("r"),
        from_region(),
        from_region(shared_memory_offset=20),
        into_region(shared_memory_offset=16),
        Memory("read", OTHER),
        UNREGISTER,
        Memory("remove", OTHER),
    ),
    one(
        "object_removed_while_registered",
        Memory("create", KEY, fp32(*FOUR).ljust(64, b"\0")),
        register({"key": KEY, "byte_size": 64}),
        Memory("remove", KEY),
        from_region(),
        UNREGISTER,
        from_region(),
    ),
]
