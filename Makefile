# make train and make test set everything up themselves; nothing but Python 3.11+ and make is needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS ?= dev,plot,lateral,sweeps
STAMP := $(VENV)/.installed
RUN ?= quickstart-$(shell date +%Y%m%d-%H%M%S)
STEPS ?= 600000
WORKERS ?= 1

.PHONY: help setup train test test-slow lint docs clean

help:
	@echo "make setup      set up $(VENV)"
	@echo "make train      train with worker processes, then evaluate on video (STEPS=$(STEPS) WORKERS=$(WORKERS))"
	@echo "make test       lint, type-check and run the everyday tests"
	@echo "make test-slow  run the long tests"
	@echo "make docs       build the documentation as a site, into build/site"

setup: $(STAMP)

$(STAMP): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("RACER needs Python 3.11 or newer; set PYTHON=...") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $(STAMP)

# The CVaR actor-critic. Transitions cost little beside gradient steps, so there are many environments and one update() call
# of 8 gradient steps for each step of all of them.
train: setup
	$(BIN)/python scripts/sim/train_highway_distributed.py \
	  --config scripts/sim/configs/highway_distributional_config.py --run_name $(RUN) \
	  --max_steps $(STEPS) --num_workers $(WORKERS) --envs_per_worker 64 --worker_steps_per_iteration 8 \
	  --batch_size 128 --utd_ratio 8 --experience_batch_size 64 --learner_update_ratio 1 \
	  --log_interval 20000 --eval_interval 100000 --save_interval 100000
	$(BIN)/python scripts/sim/run_highway_policy.py --policy_file policies/$(RUN) --compare_random \
	  --num_episodes 50 --num_videos 2 --video_output_dir evaluation_videos/$(RUN)

test: setup lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations 15

test-slow: setup
	$(BIN)/python -m pytest -m slow --timeout 1800

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS),docs]'
	$(BIN)/python -m mkdocs build --quiet
	@echo "open build/site/index.html; its search needs a server: $(BIN)/python -m http.server --directory build/site"

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
