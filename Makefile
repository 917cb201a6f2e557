# `make demo`, `make gallery` and `make test` do all the set-up themselves: they need Python 3.10+ with its venv module, and nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUNS ?= runs
WORKERS ?= 2

.PHONY: demo gallery test check check-style check-types check-doctests stubs docs dist matrix gpu clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[cli]"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

$(VENV)/.installed-release: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --group release
	touch $@

# A minute, and what to look at.
demo: $(VENV)/.installed
	@$(BIN)/python examples/demo.py --out $(RUNS)/demo

# The longer examples, some minutes; the pictures can be opened while they are drawn.
gallery: $(VENV)/.installed
	@echo "This takes some minutes. Look while it runs: in another terminal,"
	@echo
	@echo "    $(BIN)/lightning-viz board $(RUNS)"
	@echo
	$(BIN)/python examples/digits.py --out $(RUNS)
	$(BIN)/python examples/plane.py --out $(RUNS)
	$(BIN)/python examples/glyphs.py --out $(RUNS)
	$(BIN)/python examples/dream.py --out $(RUNS)/dream --only classes units inversions
	@echo
	@echo "Analyze the network that was trained on the digits, in one report, with:"
	@echo
	@echo "    $(BIN)/lightning-viz analyze $(RUNS)/digits --model examples.digits.LeNet --data examples.digits.Digits"
	@echo

# File by file, so that what a file's tests share is made once, and the many short files of hooks and render come last.
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# Each part may be made alone, and with -j 2 they run side by side.
check: check-style check-types check-doctests

check-style: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

check-types: $(VENV)/.installed-dev
	$(BIN)/mypy

check-doctests: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --doctest-modules lightning_viz

stubs: $(VENV)/.installed-dev
	$(BIN)/python tools/public_face.py

# The site, in build/docs: warnings are errors, and what the site is to hold is checked. It takes some minutes.
docs: $(VENV)/.installed-docs
	$(BIN)/sphinx-build -W --keep-going -q -d build/doctrees docs build/docs
	$(BIN)/python tools/check_site.py build/docs

# What the package index gets, in dist.
dist: $(VENV)/.installed-release
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

# Other Pythons, the oldest and the newest versions of what the package needs: of those that this machine has, or of
# MATRIX="--python 3.10 --versions oldest" alone. About 6 GB and an hour for each row; the table is build/matrix/table.md.
matrix: $(VENV)/.installed-release
	$(BIN)/python tools/matrix.py $(MATRIX)

# All that there is to measure and to test on a GPU, as one table in build/gpu.md; without one, a dry run on the CPU.
# GPU="--quick" takes small nets and few steps.
gpu: $(VENV)/.installed-dev
	mkdir -p build
	$(BIN)/python benchmarks/gpu.py --out build/gpu.md $(GPU)

clean:
	rm -rf $(VENV) $(RUNS) build dist lightning_logs
