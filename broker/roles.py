"""Who may send what: a peer that sends anything else is broken, or not what it says, and is killed. Pure."""

from typing import Any

from broker.messages import (
    Beat,
    Cancel,
    ChangeMetric,
    Consumed,
    DeclareMetric,
    DropMetric,
    Executed,
    GetLabels,
    GetMetrics,
    GetMetricValue,
    GetModelConfig,
    GetModelMetadata,
    GetModelReady,
    GetRegionStatus,
    GetRepositoryIndex,
    GetServerReady,
    GetStatistics,
    Infer,
    Loaded,
    LoadFailed,
    LoadModel,
    Log,
    MemorySampled,
    ModelConsidered,
    ModelDescribed,
    ModelRejected,
    ModelRemoved,
    ReadyChecked,
    RegionClosed,
    RegionDropped,
    RegionOpened,
    RegisterRegion,
    RepositoryListed,
    RepositoryScanned,
    Responded,
    Serving,
    UnloadModel,
    UnregisterRegion,
    UpdateLogSettings,
    UpdateTraceSettings,
)

READERS = ("http", "grpc", "sagemaker", "vertex_ai")
"""The roles that read and write tensors for clients."""

_MEMORY = {RegionOpened, RegionClosed, RegionDropped}
_CLIENT = {Infer, Cancel, Consumed, GetModelReady, LoadModel, UnloadModel}  # of clients, and of models that call others
_READER = {
    Beat,
    Serving,
    *_MEMORY,
    *_CLIENT,
    GetServerReady,
    GetModelMetadata,
    GetModelConfig,
    GetLabels,
    GetStatistics,
    GetMetrics,
    GetRepositoryIndex,
    UpdateTraceSettings,
    UpdateLogSettings,
    RegisterRegion,
    UnregisterRegion,
    GetRegionStatus,
}

SENT: dict[str, set[type[Any]]] = {
    **dict.fromkeys(READERS, _READER),
    "metrics": {Beat, Serving, GetMetrics},
    "worker": {
        Beat,
        Log,
        *_MEMORY,
        *_CLIENT,
        Loaded,
        LoadFailed,
        Executed,
        Responded,
        ReadyChecked,
        DeclareMetric,
        ChangeMetric,
        GetMetricValue,
        DropMetric,
    },
    "repository": {
        Beat,
        Log,
        ModelDescribed,
        ModelRejected,
        ModelRemoved,
        ModelConsidered,
        RepositoryScanned,
        RepositoryListed,
        MemorySampled,
    },
}
"""What each role sends once it has said Hello, which is the first message of every peer and its only Hello."""
