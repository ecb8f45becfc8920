# make demo    train a GAN on photographs, plain PyTorch against ganloss_fast
# make test    the test suite
# Both set up whatever is missing in .venv. Everything else is for people who work on the package.

TORCH ?= torch==2.14.1
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SOURCES = $(shell find csrc -type f) setup.py pyproject.toml
CXX_FILES = $(shell find csrc tests -name '*.cpp' -o -name '*.h' -o -name '*.inl' -o -name '*.cu' -o -name '*.cuh')

.PHONY: demo test bench speed gate picture docs lint format clean gpu test-gpu bench-gpu sanitize-gpu \
    verify-gpu-kernels prove-cuda prove-cuda-ops prove-cuda-schedule prove-triton

demo: $(VENV)/.built
	$(BIN)/python -m demo.train $(ARGS)

test: $(VENV)/.built
	$(BIN)/python -m pytest -m "not gpu_proof" $(ARGS)

bench: $(VENV)/.built
	$(BIN)/python -m benchmarks.record $(ARGS)

# One contender after the other, with pytest-benchmark: its tables, comparisons and profiles.
speed: $(VENV)/.built
	$(BIN)/python -m pytest benchmarks/test_speed.py $(ARGS)

# Ratios against the record, of workloads whose ratios are much the same on every machine: in the
# cache, or one pass over memory. (Eager's temporaries of 12 MB cost page faults on one machine and
# none on another.) They move by a tenth from run to run; a slowdown of 1.5 makes 0.67 of one. A
# record that ratios have outgrown would hide it: the gate says so, and with ARGS=--both-ways it is
# shut.
gate: $(VENV)/.built
	$(BIN)/python -m benchmarks gate --base benchmarks/results/cpu.json --tolerance 0.25 \
	    --only "64 logits" --only "8 outputs" --only "54 maps" \
	    --only "norm penalty, 8x3" --only "DCGAN: penalty" $(ARGS)

# The picture and the tables of numbers in README and docs, from the records of the benchmark.
picture: $(VENV)/.built
	$(BIN)/python -m benchmarks.picture

# The documentation as a site, in build/docs: no broken link, no public name left out.
docs: $(VENV)/.built
	$(BIN)/python -m sphinx -b html -n -W --keep-going -q docs build/docs

# The GPU kernels, executed, race-checked, memory-checked and held to their static budget on a
# machine without a GPU: CUDA C++ on the harness in tests/proofs/harness, on two schedules, and Triton in
# its interpreter (left out there: what is about Triton's real launches). What lacks a tool is skipped
# with the reason; ARGS=--no-skips makes that an error.
verify-gpu-kernels: $(addprefix prove-, cuda cuda-ops cuda-schedule triton)

prove-cuda: $(VENV)/.built
	$(BIN)/python -m pytest $(ARGS) tests/proofs

# Files about Triton's interpreter skip themselves without it.
EMULATED = --emulated-cuda --ignore-glob='*/test_triton_*'

prove-cuda-ops: $(VENV)/.built
	$(BIN)/python -m pytest $(ARGS) $(EMULATED) -m every_implementation

prove-cuda-schedule: $(VENV)/.built
	GANLOSS_HARNESS_SEED=1 $(BIN)/python -m pytest $(ARGS) $(EMULATED) -m order_of_threads

prove-triton: $(VENV)/.built
	TRITON_INTERPRET=1 $(BIN)/python -m pytest $(ARGS) -m every_implementation -k triton \
	    $(addprefix --ignore=tests/, proofs ops/test_triton_device.py ops/test_triton_overhead.py)

# All that a machine with a GPU is wanted for, in nine minutes and without a network, with the
# torch of PYTHON as it is: tests, timings, sanitizers. What was found lies in OUT.
OUT ?= gpu-session
gpu:
	$(PYTHON) -m benchmarks.gpu_session --output $(OUT) $(ARGS)

# On a machine with a GPU: the tests that need one, and the op tests on its kernels.
test-gpu: $(VENV)/.built
	$(BIN)/python -m pytest -m gpu $(ARGS)
	$(BIN)/python -m pytest --on-gpu=native -m every_implementation $(ARGS)
	$(BIN)/python -m pytest --on-gpu=triton -m every_implementation $(ARGS)

bench-gpu: $(VENV)/.built
	$(BIN)/python -m benchmarks.gpu $(ARGS)

# Without the caching allocator, which hides overruns between tensors; captures need it, and the
# largest tensors take hours.
sanitize-gpu: $(VENV)/.built
	set -e; for tool in memcheck racecheck synccheck initcheck; do \
	    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool $$tool --error-exitcode 1 \
	    $(BIN)/python -m pytest -m gpu --timeout=0 -k "not captured and not 2_to_the_31" $(ARGS); \
	done

lint: $(VENV)/.built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)

format: $(VENV)/.built
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

clean:
	rm -rf build dist *.egg-info ganloss_fast/*.so ganloss_fast/_build.json $(VENV)/.built

$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile $(TORCH) setuptools wheel ninja pybind11
	touch $@

$(VENV)/.built: $(VENV)/.torch $(SOURCES)
	$(BIN)/pip install --quiet --no-build-isolation --editable '.[test,bench,lint,docs]'
	touch $@
