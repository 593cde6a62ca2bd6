# Everything that is done with this project; `make` lists it. Each target sets up .venv itself.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt
INPUTS := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install run check test test-large test-gpu golden fuzz bench generate train clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

install: $(VENV)/.installed-serve ## install the server with PyTorch, ONNX Runtime and the demo models' needs
	@$(BIN)/python scripts/install_torch.py constraints.txt

run: $(VENV)/.installed-serve ## start the server with configs/server.pbtxt; ARGS="--http-port=9000 ..."
	@exec $(BIN)/python -m broker --config configs/server.pbtxt $(ARGS)

check: $(VENV)/.installed-check ## format, lint, types and import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/mypy scripts
	@$(BIN)/lint-imports

test: $(VENV)/.installed-serve $(VENV)/.installed-test ## run the tests; ARGS="-k shape ..."
	@$(BIN)/python -m pytest $(ARGS)

test-large: $(VENV)/.installed-serve $(VENV)/.installed-test ## payloads up to 1 GiB
	@$(BIN)/python -m pytest -m large $(ARGS)

test-gpu: $(VENV)/.installed-serve $(VENV)/.installed-test ## what needs an NVIDIA GPU; lists what it skips
	@$(BIN)/python -m pytest -m gpu -v -rs $(ARGS) || { status=$$?; \
	  [ $$status -eq 5 ] && echo "No test is marked gpu: nothing was run."; [ $$status -eq 5 ]; }

golden: $(VENV)/.installed-serve $(VENV)/.installed-test ## record the answers of the real Triton anew; ARGS="core ..."
	@$(BIN)/python -m tests.golden.record $(ARGS)

fuzz: $(VENV)/.installed-serve $(VENV)/.installed-test ## send 3,000 bad inputs to each of eight targets; ARGS="--seed 7 --inputs 9000"
	@$(BIN)/python -m tests.fuzz $(ARGS)

bench: $(VENV)/.installed-bench ## compare with the real Triton; ARGS="--quick" for a first look
	@$(BIN)/python -m bench.serving $(ARGS)

generate: $(VENV)/.installed-generate ## compile the .proto files and write the options' tables anew
	@$(BIN)/python -m configs.proto.generate
	@$(BIN)/python -m frontends.grpc.generate
	@$(BIN)/python scripts/document_options.py

train: $(VENV)/.installed-serve $(VENV)/.installed-train ## train the demo models anew
	@$(BIN)/python examples/train_digits.py

clean: ## back to a fresh clone: remove .venv, caches and results
	rm -rf $(VENV) build dist *.egg-info bench/results .*_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- .venv: one stamp per set of extras; a change of the project's dependencies installs anew

EXTRAS-serve := onnx,examples,safetensors
EXTRAS-check := check
EXTRAS-test := test
EXTRAS-bench := bench
EXTRAS-generate := dev
EXTRAS-train := train

$(VENV)/.created:
	@sh scripts/make_venv.sh $(VENV)
	@touch $@

# PyTorch comes first, and by itself: an extra that names it would fetch the CUDA build.
$(VENV)/.installed-serve: | $(VENV)/.torch
$(VENV)/.torch: scripts/install_torch.py | $(VENV)/.created
	@$(BIN)/python scripts/install_torch.py constraints.txt
	@touch $@

$(VENV)/.installed-%: $(INPUTS) | $(VENV)/.created
	@echo "Installing into $(VENV): $(EXTRAS-$*) (the first time takes a minute or two)"
	@$(PIP) --editable '.[$(EXTRAS-$*)]'
	@touch $@
