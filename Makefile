# Everything from a fresh clone with Python >= 3.11, pip and make:
#   make demo         the concepts in all three places, side by side
#   make test         lint, types and tests
#   make bench        the cluster beside multiprocessing, on this machine
#   make faults       thousands of calls and tasks while everything is killed; about three quarters of an hour
#   make course       the lessons' programs in all places, what they print quoted in the texts, and the pages
#   make conformance  CPython's own multiprocessing suite, in all three places
#   make audit        known vulnerabilities of what uv.lock installs; make sbom: a list of it (CycloneDX), sbom.json
# With uv installed, the same without make: uv run producer compare, uv run pytest -n 3 --dist loadfile.

PYTHON ?= python3
UV := $(or $(shell command -v uv),.tools/bin/uv)
RUN := $(UV) run --frozen

# What an interpreter has compiled, the next one reads: else a fleet starts four times as slowly, and so does every command.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test bench course conformance ratchet faults lint audit sbom setup clean

demo: setup
	$(RUN) producer compare

# Three at a time, also on two cores: most tests wait more than they compute. What fails beside others is tried once more
# alone: many tests here are about time, and machines are shared.
test: setup
	$(RUN) pytest -n 3 --dist loadfile --no-loadscope-reorder \
	  || { test $$? = 1 && $(RUN) pytest --last-failed --last-failed-no-failures none; }

bench: setup
	$(RUN) python -m benchmarks.side_by_side

course: setup
	$(RUN) python -m producer.learning.build

faults: setup
	for seed in 1 2 3 4 5; do $(RUN) producer chaos --seed $$seed || exit 1; done
	$(RUN) python -m faults.kills
	$(RUN) python -m faults.recovery
	$(RUN) python -m faults.memory
	$(RUN) python -m faults.ceiling
	for seed in 1 2 3 4 5 6 7 8 9 10; do $(RUN) python -m faults.keys --seed $$seed || exit 1; done
	$(RUN) pytest faults

conformance: setup
	$(RUN) python -m conformance

ratchet: setup
	$(RUN) python -m conformance --ratchet --if-present --budget 600

lint: setup
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

audit: $(UV)
	PATH="$(dir $(abspath $(UV))):$$PATH" sh deploy/audit

sbom: $(UV)
	$(UV) export --frozen --no-dev --group monitor --format cyclonedx1.5 --quiet --output-file sbom.json > /dev/null

# Its last step compiles what the commands and a fleet import, once, also for who then calls .venv/bin/producer with
# PYTHONDONTWRITEBYTECODE set.
setup: .venv/.ready

.venv/.ready: pyproject.toml uv.lock | $(UV)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) -V); Crosshost needs 3.11 or later. Name one: make PYTHON=python3.13 $(MAKECMDGOALS)"; exit 1; }
	$(UV) sync --frozen --quiet --python $(PYTHON)
	@$(RUN) producer demo process --on cluster > /dev/null 2>&1 || true
	@touch $@

.tools/bin/uv:
	$(PYTHON) -m venv .tools
	.tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement deploy/uv.txt

clean:
	rm -rf .venv .tools sbom.json .pytest_cache .ruff_cache .mypy_cache
