# make setup | test | test-all | test-cpus | test-pythons | test-slurm | bench | bench-scale | docs | demo | study | study-real | packs | check | types
# make clean
# PYTHON=python3.11 chooses the interpreter
PYTHON ?= python3
PYTHONS ?= 3.10 3.11 3.12
BIN := $(CURDIR)/.venv/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

# ESPnet is slow to import without compiled files, whatever the caller's shell says.
unexport PYTHONDONTWRITEBYTECODE

# BENCH_ARGS=--full measures all
BENCH_ARGS ?=

.PHONY: setup test test-all test-cpus test-pythons test-slurm bench bench-scale docs demo study study-real packs check types clean

setup:
	@$(PYTHON) tools/setup.py

check: setup
	$(BIN)/ruff check .
	tools/shellcheck.sh
	$(BIN)/mypy

types: setup
	$(BIN)/mypy

test: check
	$(PYTEST) -m "not slow and not slurm"

test-all: check
	$(PYTEST) -m "not slurm"

# The fast tests with the kernels of other CPUs: they round in another way, and no test may notice.
test-cpus: check
	ATEN_CPU_CAPABILITY=default $(PYTEST) -m "not slow and not slurm"
	ATEN_CPU_CAPABILITY=avx2 $(PYTEST) -m "not slow and not slurm"
	ONEDNN_MAX_CPU_ISA=AVX2 $(PYTEST) -m "not slow and not slurm"

# The fast tests of what is committed, in a clone and an environment for each Python.
test-pythons:
	@for version in $(PYTHONS); do \
	    rm -rf .pythons/$$version && git clone -q . .pythons/$$version && \
	    $(MAKE) -C .pythons/$$version test PYTHON=python$$version || exit 1; \
	done

# A recipe on a Slurm that is started for it and stopped after it; two nodes need root.
test-slurm: setup
	NODES=$$([ "$$(id -u)" = 0 ] && echo 2 || echo 1) tools/slurm_local.sh \
	    $(BIN)/python -m pytest -m slurm tests/recipes/test_slurm.py

# Speed beside ESPnet and, where it is installed, CTranslate2, and a search without caches.
bench: setup
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

# Time and memory of data preparation and scoring over the number of lines; BENCH_ARGS="--lines 10000000" for others.
bench-scale: setup
	$(BIN)/python -m benchmarks.scale $(BENCH_ARGS)

# The documentation as a site in site/, offline; a dead link or a key without a meaning fails. (--quiet would hide
# warnings from --strict.)
docs: setup
	$(BIN)/python -m mkdocs build --strict
	@echo "open site/index.html, or run $(BIN)/python -m http.server -d site for the search"

demo: setup
	cd egs2/mini_legonn/legonn1 && PATH="$(BIN):$$PATH" ./run.sh

# The demo's first table over ten seeds: hours; what is done is not done again.
study: setup
	cd egs2/mini_legonn/legonn1 && PATH="$(BIN):$$PATH" ./run.sh --stop_stage 13 --tables study --seeds "1 2 3 4 5 6 7 8 9 10"

# The study of docs/study.md on real text, MULTI30K=DIR: many hours; what is done is not done again. STUDY_ARGS="--seeds 1"
STUDY_ARGS ?=
study-real: setup
	cd egs2/multi30k_study/legonn1 && PATH="$(BIN):$$PATH" ./run.sh $(STUDY_ARGS)

# The packs that ship with the repository, from the demo's experiments (run `make demo` first).
packs: setup
	cd egs2/mini_legonn/legonn1 && PATH="$(BIN):$$PATH" ./run.sh --stage 14 --inventory ../../../packs

# Removes what set-up and tests made; recipes' data/, dump/ and exp/ hold hours of work and stay.
clean:
	rm -rf .venv .setup.lock build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
