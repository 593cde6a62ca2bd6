# The server for CPUs: `docker build -t tidepool .`
# ONNX Runtime comes along; `--build-arg EXTRAS=onnx,redis` and so on choose otherwise. For PyTorch see Dockerfile.pytorch.
ARG BASE=python:3.12-slim
FROM ${BASE}
ARG EXTRAS=onnx

# Where Triton's images have theirs, so that Python-based backends are looked for in /opt/tritonserver/backends.
RUN python -m venv /opt/tritonserver
ENV PATH=/opt/tritonserver/bin:${PATH}

COPY pyproject.toml README.md LICENSE constraints.txt /src/
COPY broker /src/broker
COPY configs /src/configs
COPY frontends /src/frontends
COPY shm /src/shm
COPY workers /src/workers
RUN pip install --no-cache-dir --constraint /src/constraints.txt "/src[${EXTRAS}]"

WORKDIR /opt/tritonserver
EXPOSE 8000 8001 8002
CMD ["tritonserver", "--model-repository=/models"]
