# The commands of the project. Each works from a fresh clone: what it needs is set up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A file that says the environment is complete; it is older than what it was made from when that changes.
READY := $(VENV)/ready

.PHONY: setup demo test check format clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "torch" "hatchling" "editables"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--no-build-isolation --editable ".[dense,documents,endpoint,files,lancedb,mcp,search,serve]" $(shell $(PYTHON) -c "import tomllib; print(' '.join('\"' + d + '\"' for d in tomllib.load(open('pyproject.toml', 'rb'))['dependency-groups']['dev']))")
	touch $(READY)

demo: setup
	$(BIN)/rung demo

# One thread a process: the networks of most tests are too small to share.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet -n 2 --dist loadfile --no-loadscope-reorder

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet tests/test_imports.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
