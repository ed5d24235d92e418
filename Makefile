# The commands of the project. `make help` lists them.
PYTHON ?= python3
CONFIG ?= config/config.yaml
CORES ?= all
VENV := .venv/bin

.PHONY: help setup study doctor test teachers config lock clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## set up the virtual environments .venv and .venv-evaluation (PYTHON=python3.12 chooses another Python)
	@command -v $(PYTHON) > /dev/null || { echo "set-up: no $(PYTHON) here: install Python 3.11, 3.12 or 3.13" >&2; exit 1; }
	@$(PYTHON) tools/set_up.py

study: setup ## set up, then run the study of CONFIG (default: config/config.yaml, the miniature study) on CORES
	@$(VENV)/python tools/run_study.py $(CONFIG) --cores $(CORES)

doctor: setup ## set up, then say what this machine lacks for the study of CONFIG
	@$(VENV)/snakemake --cores $(CORES) doctor --configfile $(CONFIG)

test: setup ## set up, then check format and style, and run the tests, two files at a time
	@$(VENV)/ruff format --check benchmarks tests tools workflow
	@$(VENV)/ruff check benchmarks tests tools workflow
	@$(VENV)/snakefmt --check Snakefile workflow
	@$(VENV)/python -m pytest --numprocesses 2 --no-loadscope-reorder

teachers: setup ## train the miniature's teachers anew and put them into resources/teachers
	@$(VENV)/python tools/run_study.py config/config.yaml --cores $(CORES) teachers
	@$(VENV)/python tools/ship_teachers.py results/miniature/teachers

config: setup ## write config/config.yaml, config/test.yaml and the schema from the configuration's models
	@$(VENV)/python tools/render_config.py

lock: setup ## resolve envs/*.in into their locks again
	@$(VENV)/python tools/lock_environments.py

clean: ## remove the virtual environments and what tools left; results stay
	rm -rf .venv .venv-evaluation .pytest_cache .ruff_cache .hypothesis
