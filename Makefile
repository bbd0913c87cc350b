# make demo          sets up and runs the main job on bundled real data, offline; leaves a report
# make test          sets up, lints, type-checks and runs the tests
# make test-modern   runs the tests on numpy 2, pandas 3 and vectorbt 1.2, in .venv-modern; from
#                    Python 3.13 on, make test does
# make docs          builds the documentation in site/
# make bench         measures against the peers
# make attack        damages run folders, settings and answers of Yahoo; kills commands, fills their
#                    disk, runs two at once, for other users and at other times; an hour
# make mutation      changes the code in small ways, and lists the changes that no test notices
# Everything goes through one virtual environment, .venv, made from pyproject.toml alone.

PYTHON ?= python3
BIN := .venv/bin
MODERN := .venv-modern/bin
# Python compiles to bytecode what it imports, a quarter of what pip would; pip does where Python may not.
INSTALL := -m pip install --quiet --disable-pip-version-check \
	$(if $(PYTHONDONTWRITEBYTECODE),,--no-compile)

# What does not depend on the stack, or is long and only repeats there what other tests do.
SAME := house/ layers/ reports/statistics/ reports/test_page_in_browser.py \
	reports/test_failures_on_the_page.py engine/accounting/test_protective_orders.py engine/compute/ \
	engine/losses/ engine/training/ engine/test_known_truth.py engine/test_paper.py \
	engine/test_engine_options.py engine/research/test_audit.py engine/research/test_replay.py \
	engine/research/test_search.py engine/research/test_seeds.py engine/runs/test_result_views.py \
	engine/trading/test_job.py engine/trading/test_todays_decision.py engine/walking/test_fitting.py \
	strategies/test_ablations.py strategies/test_large_universe.py \
	strategies/test_learned_mandates.py strategies/test_strategy_constraints.py \
	deqfolio/test_attacks.py deqfolio/test_benchmark_command.py deqfolio/test_interrupts.py \
	deqfolio/test_simulated_year.py deqfolio/test_sweep_command.py \
	deqfolio/test_trading_commands.py deqfolio/test_trust.py data_loaders/test_store.py \
	data_loaders/test_yahoo.py

.PHONY: demo test test-modern lint docs bench attack mutation clean

demo: .venv/installed
	$(BIN)/deqfolio demo

test: lint
	$(BIN)/python -m pytest -n 3 --dist worksteal

test-modern: .venv-modern/installed
	$(MODERN)/python -m pytest -n 3 --dist worksteal $(addprefix --ignore=tests/,$(SAME))

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: .venv/installed-bench
	$(BIN)/python -m benchmarks

ATTACK := PYTHONPATH=tests/support OMP_NUM_THREADS=1 $(BIN)/python tests/support/attacks.py

attack: .venv/installed-dev
	$(ATTACK) settings 1000
	$(ATTACK) yahoo 1000
	$(ATTACK) folders 1000
	$(ATTACK) together 40
	$(ATTACK) disk 60
	$(ATTACK) places 60
	$(ATTACK) kills 100

# A sample: the mutants of each function whose numbers end in 3 or 7. All: make mutation MUTANTS=
MUTANTS ?= "*_mutmut_*3" "*_mutmut_*7"

mutation: .venv/installed-mutation
	OMP_NUM_THREADS=1 nice $(BIN)/python -m mutmut run $(MUTANTS)
	$(BIN)/python -m mutmut results

clean:
	rm -rf .venv .venv-modern mutants build dist site *.egg-info

.venv/installed: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15) and 'deqfolio needs Python 3.11 to 3.14: make PYTHON=python3.13')"
	$(PYTHON) -m venv .venv
	$(BIN)/python $(INSTALL) --editable .
	$(BIN)/python $(INSTALL) --no-deps qpth  # has no effect below Python 3.13
	$(BIN)/deqfolio warm-up
	touch $@

.venv/installed-%: .venv/installed
	$(BIN)/python $(INSTALL) --editable '.[$*]'
	touch $@

.venv-modern/installed: pyproject.toml .ci/modern.py
	$(PYTHON) -m venv .venv-modern
	$(PYTHON) .ci/modern.py > .venv-modern/requirements.txt
	$(MODERN)/python $(INSTALL) --requirement .venv-modern/requirements.txt
	$(MODERN)/python $(INSTALL) --no-deps --editable . qpth
	$(MODERN)/deqfolio warm-up
	touch $@
