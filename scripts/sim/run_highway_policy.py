"""Evaluate a trained policy on racer/RiskHighway-v0 and film it.

A checkpoint is enough: it holds the policy and the complete configuration of the environment it was trained in. The
episodes start from a fixed list of held-out seeds, so two evaluations of one checkpoint give the same numbers.
Writes evaluation_metrics.json and highway_eval_{checkpoint}_episode_{i}.mp4 into --video_output_dir.

    python scripts/sim/run_highway_policy.py --policy_file policies/highway_run_42/checkpoint_10000 --num_episodes 20
"""

# ruff: noqa: E402 - an interrupt during the imports is heeded first
from __future__ import annotations

from racer.core.ending import quiet_start

quiet_start(__name__)

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from racer.core.cli import run_program
from racer.core.errors import UsageError
from racer.core.trust import offer_flags
from racer.envs.highway.config import ENGINES
from racer.evaluation.checkpoints import TrainedPolicy, config_differences, load_policy
from racer.evaluation.command import progress_bar
from racer.evaluation.episodes import FIRST_EVALUATION_SEED
from racer.evaluation.program import EvaluationOptions, evaluate_checkpoint

FLAGS = flags.FLAGS

flags.DEFINE_string(
    "policy_file",
    None,
    "Checkpoint folder to evaluate, or a run folder, which means its newest valid checkpoint; or what nobody trained: "
    "driver:planner, driver:observation-planner, driver:rules.",
)
flags.DEFINE_string(
    "world", None, "The checkpoint's world again, which a world of other people's code needs (gym:<module>:<id>)."
)
config_flags.DEFINE_config_file(
    "config",
    None,
    "Training config, optional: it is checked and compared with the checkpoint, and differences are reported; the "
    "checkpoint's values count, of the agent and of the environment. Only environment keys overridden on the command "
    "line change the evaluation, as in --config.env.vehicles_count=20.",
    lock_config=False,
    accept_new_attributes=True,
)
flags.DEFINE_string(
    "engine", None, f"Simulator to evaluate on, one of {', '.join(ENGINES)}; none takes the checkpoint's."
)
flags.DEFINE_integer("num_episodes", 20, "Episodes to run, one for each held-out seed.")
flags.DEFINE_bool("render", True, "Film episodes; --render=false evaluates only.")
flags.DEFINE_string("video_output_dir", "./evaluation_videos", "Folder for evaluation_metrics.json and the videos.")
flags.DEFINE_integer("num_videos", 3, "How many episodes to film, from the first seed on.")
flags.DEFINE_integer("seed", FIRST_EVALUATION_SEED, "First seed of the list: episode i starts from seed + i.")
flags.DEFINE_integer("num_envs", 8, "Environments stepped side by side. Changes the speed, not the numbers.")
flags.DEFINE_bool("deterministic", True, "Take the policy's most likely action; false samples from it.")
flags.DEFINE_float(
    "cvar_level",
    0.8,
    "Level of the lower tail of returns, counted as cvar_risk: 0.8 is the mean of the worst 20 %, 0 the plain mean.",
)
flags.DEFINE_string(
    "against", None, "A second policy, as --policy_file, on the same seeds; side by side in the table and the report."
)
flags.DEFINE_bool(
    "report", False, "Write evaluation_report.html: one file with pictures and the worst episodes to play again."
)
flags.DEFINE_integer(
    "mine", 0, "Search so many further held-out episodes for the worst, film them and say what they have in common."
)
flags.DEFINE_float(
    "cvar_risk", None, "Risk level to drive at, of a policy that was trained for all of them (risk_conditioned)."
)
flags.DEFINE_bool("compare_random", False, "Also run uniformly random actions on the same seeds, side by side.")


def main() -> int:
    """Evaluate as the flags say."""
    if not FLAGS.policy_file:
        raise UsageError("--policy_file is missing: name a checkpoint folder or a run folder")
    offer_flags(world="--world")
    trained = load_policy(FLAGS.policy_file, FLAGS.world)
    if FLAGS.cvar_risk is not None:
        trained = trained.at_risk(FLAGS.cvar_risk)
    overrides = env_overrides()
    if FLAGS.config is not None:
        report_config_differences(trained, overrides)
    if FLAGS.engine is not None:
        overrides["engine"] = FLAGS.engine
    options = EvaluationOptions(
        output_dir=Path(FLAGS.video_output_dir),
        num_episodes=FLAGS.num_episodes,
        first_seed=FLAGS.seed,
        num_envs=FLAGS.num_envs,
        deterministic=FLAGS.deterministic,
        cvar_level=FLAGS.cvar_level,
        num_videos=FLAGS.num_videos if FLAGS.render else 0,
        compare_random=FLAGS.compare_random,
        env_overrides=overrides,
        against=load_policy(FLAGS.against) if FLAGS.against else None,
        report=FLAGS.report,
        mine=FLAGS.mine,
    )
    outcome = evaluate_checkpoint(trained, options, on_table=print, progress=progress_bar)
    print(f"metrics: {outcome.metrics_path}")
    if outcome.report is not None:
        print(f"report:  {outcome.report}")
    for path in outcome.videos:
        print(f"video:   {path}")
    return 0


def report_config_differences(trained: TrainedPolicy, overridden: Collection[str]) -> None:
    """Say on standard error where the config file disagrees with the checkpoint; an unknown key is an error."""
    from racer.training.plan import config_from_flags, trust_config
    from racer.training.run_spec import spec_from_config  # brings JAX, which the evaluation itself does without

    config = config_from_flags()
    trust_config(config)
    spec = spec_from_config(config, seed=0)
    for line in config_differences(
        trained, spec.agent_name, spec.agent_config, spec.env_config, ignore=overridden
    ):
        print(f"note: {line}", file=sys.stderr)


def env_overrides() -> dict[str, Any]:
    """Collect the ``--config.env.<key>=<value>`` of the command line as a nested mapping."""
    found: dict[str, Any] = {}
    if FLAGS.config is None:
        return found
    for name, value in config_flags.get_override_values(FLAGS["config"]).items():
        first, *rest = name.split(".")
        if first != "env" or not rest:
            continue
        level = found
        for part in rest[:-1]:
            level = level.setdefault(part, {})
        level[rest[-1]] = value
    return found


if __name__ == "__main__":
    sys.exit(run_program(main, doc=__doc__ or ""))
