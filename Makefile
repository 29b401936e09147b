# make demo: from a fresh clone to a table. make test: the default suite. make docs: the documentation, in
# docs/_build/html. make bench: how fast, against what else. All set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
# built apart, with what their builders need: setuptools' own way fetches those without their needs
PIP := $(BIN)/pip install -q --disable-pip-version-check --use-pep517 -c constraints.txt
STAMP := .venv/.installed
TEST_STAMP := .venv/.installed-dev
DOCS_STAMP := .venv/.installed-docs
TORCH := $(shell sed -n 's/^\(torch==.*\)/\1/p' constraints.txt)

# waiting threads sleep, so that test processes side by side do not slow one another down
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: setup demo test check docs bench bench-gpu clean

setup: $(TEST_STAMP)

demo: $(STAMP)
	$(BIN)/crosstune train experiment=demo_encoder
	@# the study's two halves side by side, one core each
	export OMP_NUM_THREADS=1; \
	$(BIN)/crosstune train -m experiment=demo seed=1 & half=$$!; \
	$(BIN)/crosstune train -m experiment=demo seed=2; code=$$?; \
	wait $$half && exit $$code
	$(BIN)/crosstune report experiment=demo

test: $(TEST_STAMP)
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -q

check: $(TEST_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_architecture.py

docs: $(DOCS_STAMP)
	$(BIN)/sphinx-build -W --keep-going -n -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

bench: $(STAMP)
	$(BIN)/python benchmarks/bench.py

bench-gpu: $(STAMP)
	$(BIN)/python benchmarks/gpu.py
	$(BIN)/python benchmarks/fused.py

clean:
	rm -rf .venv .pytest_cache .ruff_cache build dist

$(BIN)/python:
	$(PYTHON) -m venv .venv

# torch first and by its exact version: where a CPU build is at hand pip takes that one
$(STAMP): $(BIN)/python pyproject.toml constraints.txt
	$(PIP) $(TORCH)
	$(PIP) -e .
	touch $@

$(TEST_STAMP): $(STAMP)
	$(PIP) -e ".[dev]"
	touch $@

$(DOCS_STAMP): $(STAMP)
	$(PIP) -e ".[docs]"
	touch $@
