# `make demo` and `make test` are all a newcomer needs; both set the environment up first.
PYTHON ?= python3
VENV := .venv
TEST_PROCESSES ?= 2
BIN := $(VENV)/bin

.PHONY: demo picture test faults setup lint format weights clean

demo: setup
	$(BIN)/caplab demo --out runs/demo

# The picture of the README, from the demo's report. It needs Chromium.
picture: demo
	chromium --headless --no-sandbox --hide-scrollbars --window-size=960,1425 \
		--screenshot=docs/report.png "file://$(CURDIR)/runs/demo/report.html"

test: setup
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder \
		-m "not faults"

# Runs that are killed, starved or broken on purpose and must continue: minutes, not seconds.
faults: setup
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist load -m faults \
		$$(grep -rl --include='*.py' 'mark.faults' tests)

setup: $(VENV)/.ready

# uv resolves and installs in a minute what pip takes many for; where it is missing it comes from
# PyPI into the environment itself. constraints.txt pins what the tests ran with.
$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	command -v uv >/dev/null || test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$$(command -v uv || echo $(BIN)/uv) pip install --python $(BIN)/python \
		--constraint constraints.txt --editable '.[dev]'
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Trains the demo's small models again from nothing (about 15 minutes on one core).
weights: setup
	$(BIN)/python -m pipelines.make_weights.all --out pipelines/world/weights

clean:
	rm -rf runs .pytest_cache .ruff_cache .mypy_cache
