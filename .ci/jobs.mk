# What CI runs two at a time, each on one thread, the longest first; a job's output comes when it
# ends. What is installed for another torch is unpacked while the extension is compiled.

# Tests that need more threads set them; the others only wait for them.
export OMP_NUM_THREADS = 1

CORE = losses penalties graph_cut test_freezing.py
# All instruction sets are the suite's business; another torch is asked with the preferred one.
PYTEST = -m pytest -q --preferred-isa

.PHONY: all environment lint suite speed oldest newest site
all: environment .venv-oldest .venv-newest suite proof-cuda proof-triton proof-cuda-ops oldest newest \
    lint proof-cuda-schedule site

# cuda: an error, not a CPU build, where a tool for CUDA is missing. For one GPU: the proofs compile
# the kernels for the others themselves.
environment:
	TORCH_CUDA_ARCH_LIST=9.0 GANLOSS_FAST_BUILD=cuda $(MAKE) .venv/.built
	.venv/bin/python -m ganloss_fast

lint: | environment
	$(MAKE) lint

suite: | environment
	$(MAKE) test

site: | environment
	$(MAKE) docs

# Ratios still as recorded, measured when nothing else runs; of the maintainers' benchmarks, that
# they run.
speed: | environment
	$(MAKE) gate
	$(MAKE) speed ARGS="-q --benchmark-disable"

proof-%: | environment
	$(MAKE) prove-$* ARGS=--no-skips

.venv-oldest: PYTHON = $(PYTHON_312)
.venv-newest: PYTHON = $(PYTHON_311)
.venv-%: tests/requirements/%.txt
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet --no-compile --requirement $<

# The session for a machine with a GPU, as far as it goes without one; what it built serves the
# losses, the penalties and the graph cut.
oldest: .venv-oldest | environment
	$(MAKE) gpu PYTHON="$(CURDIR)/$</bin/python" OUT="$(CURDIR)/gpu-session"
	cat gpu-session/summary.md
	cd build/gpu-cpython-312 && PYTHONPATH=. ../../$</bin/python $(PYTEST) $(addprefix tests/, $(CORE))

# Installed as people do: isolated from torch, so pure Python at first; then what that package advises,
# word for word. Torch stays, the kernels work. From tests, so that the installed package is
# imported, not the checkout's.
newest: .venv-newest | environment
	$</bin/pip install --quiet .
	cd tests && ../$</bin/python -c "from ganloss_fast import extension as e; print(e.ADVICE)" > ../advice.log
	grep '^ ' advice.log > advice.sh
	GANLOSS_FAST_BUILD=cpu bash -e advice.sh
	cd tests && ../$</bin/python -m ganloss_fast | tee ../newest.log
	grep -q '^torch        2.15.0' newest.log
	grep -q '^native     cpu   yes' newest.log
	cd tests && ../$</bin/python $(PYTEST) $(CORE)
