"""One YAML file for a whole run: names, defaults, errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from racer.core.errors import UsageError
from racer.core.yaml_file import read_yaml
from racer.training.settings import Settings, overridden, plan_new

CONFIG = Path(__file__).parents[2] / "scripts" / "lateral" / "config.yaml"
ALIASES = {"data_path": "routes"}


def test_the_file_that_comes_along_says_what_holds_without_it():
    written = Settings.of(read_yaml(CONFIG)).as_dict()
    usual = Settings().as_dict()
    assert written["ppo"].pop("final_lr_fraction") == pytest.approx(usual["ppo"].pop("final_lr_fraction"), abs=1e-5)
    assert written["ppo"] == usual["ppo"]
    assert written["training"] == {**usual["training"], "model_save_path": "models/lateral"}
    assert written["warm_start"] == {**usual["warm_start"], "source": "logged"}
    spec = Settings.of(read_yaml(CONFIG)).spec("lateral", ALIASES)
    assert spec.env_config == Settings().spec("lateral", ALIASES).env_config


def test_a_run_lies_in_a_folder_of_its_worlds_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert plan_new("test", Settings(), Settings().spec("lateral", ALIASES), 0).folder == Path("models/lateral")
    elsewhere = Settings.of({"training": {"model_save_path": "here"}})
    assert plan_new("test", elsewhere, elsewhere.spec("lateral", ALIASES), 0).folder == Path("here")


def test_names_are_translated():
    values = {"seed": 3, "env": {"data_path": "somewhere", "num_envs": 4, "max_steps": 100},
              "ppo": {"gamma": 0.9, "learning_rate": 1e-3, "num_steps": 32, "batch_size": 64, "hidden_sizes": [8],
                      "shared_extractor": True}, "training": {"total_timesteps": 5000}}  # fmt: skip
    settings = Settings.of(values)
    spec = settings.spec("lateral", ALIASES)
    assert (spec.world, spec.seed, spec.agent_name) == ("lateral", 3, "PPOLearner")
    assert spec.env_config["routes"] == "somewhere"
    assert spec.env_config["max_steps"] == 100
    agent = spec.agent_config
    assert (agent["discount"], agent["actor_lr"], agent["critic_lr"]) == (0.9, 1e-3, 1e-3)
    assert (agent["rollout_length"], agent["num_minibatches"], agent["shared_trunk"]) == (32, 2, True)
    assert (agent["hidden_dims"], agent["lr_decay_transitions"]) == ([8], 5000)
    setup = settings.setup(2)
    assert (setup.envs_per_worker, setup.service.num_workers, setup.inline) == (2, 2, False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainin.log_freq=3"], "unknown config key 'trainin'; did you mean 'training'"),
        (["ppo.gama=0.9"], "unknown config key 'ppo': 'gama'; did you mean 'gamma'"),
        (["ppo.gamma=high"], "config key 'ppo': 'gamma' must be a finite number"),
        (["ppo.gamma=1.5"], "at most 1"),
        (["ppo.activation=tahn"], "did you mean 'tanh'"),
        (["env.num_envs=0"], "'num_envs' must be a whole number at least 1"),
        (["env.num_envs=3"], "'batch_size' 500 does not divide the 768 transitions"),
        (["env.plnt=synthetic"], "did you mean 'plant'"),
        (["seed=-1"], "'seed'"),
        (["device=tpu"], "'device'"),
        (["training=4"], "config key 'training':"),
        (["warm_start.source=pid", "training.start_from=x"], "demonstrations or with training.start_from"),
        (["nonsense"], "must be written section.key=value"),
        (["seed.x=1"], "'seed' is no section"),
    ],
)
def test_wrong_settings_are_refused(words, message):
    base = {"seed": 1, "ppo": {"batch_size": 500 if "env.num_envs=3" in words else 256}}
    with pytest.raises(UsageError, match=message):
        Settings.of(overridden(base, words)).spec("lateral", ALIASES)


def test_environments_divide_among_workers():
    with pytest.raises(UsageError, match="do not divide among 3 workers"):
        Settings().setup(3)
