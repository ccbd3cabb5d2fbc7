# make train and make test set everything up themselves; nothing but Python 3.11+ and make is needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS ?= dev,plot,lateral
STAMP := $(VENV)/.installed
RUN ?= quickstart-$(shell date +%Y%m%d-%H%M%S)
STEPS ?= 2000000
WORKERS ?= 1

.PHONY: help setup train test test-slow lint clean

help:
	@echo "make setup      set up $(VENV)"
	@echo "make train      train with worker processes, then evaluate on video (STEPS=$(STEPS) WORKERS=$(WORKERS))"
	@echo "make test       lint, type-check and run the everyday tests"
	@echo "make test-slow  run the long tests"

setup: $(STAMP)

$(STAMP): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("RACER needs Python 3.11 or newer; set PYTHON=...") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $(STAMP)

# PPO rather than the CVaR actor-critic: it needs the fewest minutes on two cores to drive. The step size falls over the
# run, however short it is: a policy is best after it has fallen.
train: setup
	$(BIN)/python scripts/sim/train_highway_distributed.py \
	  --config scripts/sim/configs/highway_ppo_config.py --config.lr_decay_transitions=$(STEPS) --run_name $(RUN) \
	  --max_steps $(STEPS) --num_workers $(WORKERS) --envs_per_worker 16 \
	  --log_interval 20000 --eval_interval 250000 --save_interval 250000
	$(BIN)/python scripts/sim/run_highway_policy.py --policy_file policies/$(RUN) --compare_random \
	  --num_episodes 50 --num_videos 2 --video_output_dir evaluation_videos/$(RUN)

test: setup lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations 15

test-slow: setup
	$(BIN)/python -m pytest -m slow --timeout 1800

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
