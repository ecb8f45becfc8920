# make demo    train a GAN on photographs, plain PyTorch against ganloss_fast
# make test    the test suite
# Both set up whatever is missing in .venv. Everything else is for people who work on the package.

TORCH ?= torch==2.14.1
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SOURCES = $(shell find csrc -type f) setup.py pyproject.toml
CXX_FILES = $(shell find csrc tests -name '*.cpp' -o -name '*.h' -o -name '*.inl' -o -name '*.cu' -o -name '*.cuh')

.PHONY: demo test bench lint format clean

demo: $(VENV)/.built
	$(BIN)/python -m benchmarks.train $(ARGS)

test: $(VENV)/.built
	$(BIN)/python -m pytest $(ARGS)

bench: $(VENV)/.built
	$(BIN)/python -m benchmarks.run $(ARGS)

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
	$(BIN)/pip install --quiet $(TORCH) setuptools wheel ninja pybind11
	touch $@

$(VENV)/.built: $(VENV)/.torch $(SOURCES)
	$(BIN)/pip install --quiet --no-build-isolation --editable '.[test,bench,lint]'
	touch $@
