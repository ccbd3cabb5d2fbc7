"""ONNX files: onnxruntime acts as the policy does, memory included, for any number of observations at once."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import pytest

import racer
from racer.core.errors import RacerError, UsageError
from racer.envs.highway.views import VIEWS
from racer.evaluation.export import add_arguments, export
from racer.networks.policy import Policy
from racer.networks.torso import build_torso

onnxruntime = pytest.importorskip("onnxruntime", reason="NOT TESTED: ONNX export needs pip install '.[onnx]'")
from racer.evaluation.jaxpr_onnx import graph_of  # noqa: E402  (needs onnx)
from racer.evaluation.onnx_export import check_onnx, export_onnx  # noqa: E402

POINTNET = {"kind": "pointnet", "widths": (4, 8)}
ATTENTION = {"kind": "attention", "embed": 8, "heads": 2}
GRU = {"kind": "gru", "size": 4}
TRANSFORMER = {"kind": "transformer", "embed": 8, "layers": 2, "heads": 2, "length": 5}
PLAIN = {"hidden_dims": (8,)}


def made(shape=(3, 6), torso=None, kind="tanh_gaussian", **options):
    """The shipped policy with another network, drawn at random."""
    import jax

    inside = VIEWS[options["view"]].shape(shape) if "view" in options else shape
    policy = Policy(kind, shape, torso=build_torso(inside, {**PLAIN, **(torso or {})}), size=2, **options)
    params = {name: np.asarray(value) for name, value in policy.init(jax.random.PRNGKey(1)).items()}
    # A first policy is almost the same everywhere; this one is not.
    below = ("encoder", "trunk", "memory")
    heads = [name for name in params if name.endswith("kernel") and not name.startswith(below)]
    params |= {name: 20 * params[name] for name in heads}
    ends = {"action_low": np.full(2, -1.0, np.float32), "action_high": np.full(2, 0.5, np.float32)}
    return dataclasses.replace(racer.load_policy("highway-ppo"), policy=policy, params=params | ends)


def run(path: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {"torso": {"encoder": POINTNET, "observation_scale": 0.3}},
        pytest.param({"torso": {"encoder": ATTENTION, "memory": GRU}}, marks=pytest.mark.slow),
        {"torso": {"memory": TRANSFORMER, "activation": "tanh"}},
        {"kind": "beta"},
        {"kind": "categorical", "torso": {"memory": GRU}},
        pytest.param({"kind": "squashed_gaussian"}, marks=pytest.mark.slow),
        {"shape": (15, 6), "world": "highway", "view": "lane_slots", "controller": "targets"},
    ],
    ids=["pointnet", "attention-gru", "transformer", "beta", "categorical", "squashed", "view-controller"],
)
def test_it_acts_as_the_policy_does(options, tmp_path):
    trained = made(**options)
    path = export_onnx(trained, tmp_path / "policy.onnx")
    rng = np.random.default_rng(5)
    for batch in (1, 2, 9):
        memory = theirs = trained.policy.initial_memory(batch)
        actions = []
        for _ in range(12):
            # Rows that are all zeros are empty for some encoders.
            observation = rng.normal(size=(batch, *trained.policy.observation_shape)).astype(np.float32)
            observation[:, -1] = 0.0
            ours, memory = trained.predict(observation, memory)
            found = run(path, {"observation": observation, **theirs})
            assert found["action"].shape == ours.shape
            np.testing.assert_allclose(found["action"], ours, atol=1e-5)
            theirs = {name: found[f"next_{name}"] for name in theirs}
            for name, value in memory.items():
                np.testing.assert_allclose(theirs[name], value, atol=1e-5)
            actions.append(ours)
        assert np.std(actions, axis=0).max() > 0.01


def test_inputs_and_outputs_name_their_batch(tmp_path):
    path = export_onnx(made(torso={"memory": GRU}), tmp_path / "p.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    described = {value.name: value.shape for value in (*session.get_inputs(), *session.get_outputs())}
    assert described == {"observation": ["N", 3, 6], "hidden": ["N", 4], "action": ["N", 2], "next_hidden": ["N", 4]}


def test_a_shipped_policy_drives_alike(tmp_path):
    trained = racer.load_policy("highway-ppo")
    path = export_onnx(trained, tmp_path / "policy.onnx")
    env = trained.world.make(trained.env_config, 1)
    observations, _ = env.reset(seed=10_000)
    for _ in range(30):
        actions, _ = trained.predict(observations)
        found = run(path, {"observation": observations.reshape(1, 15, 6)})["action"]
        np.testing.assert_allclose(found, actions, atol=1e-5)
        observations, *_ = env.step(actions)
    env.close()


def test_a_file_of_another_policy_is_noticed(tmp_path):
    first = made()
    path = export_onnx(first, tmp_path / "policy.onnx")
    other = dataclasses.replace(first, params={**first.params, "mean/bias": first.params["mean/bias"] + 0.3})
    with pytest.raises(RacerError, match="onnxruntime and the policy differ by"):
        check_onnx(other, path)


def test_what_has_no_translation_is_named():
    import jax

    with pytest.raises(RacerError, match="JAX's 'lgamma' has no translation"):
        graph_of(lambda x: {"y": jax.lax.lgamma(x)}, {"x": np.ones((1, 2), np.float32)}, "f")


def test_arrays_that_grow_faster_than_the_batch_are_refused():
    import jax.numpy as jnp

    with pytest.raises(RacerError, match="for every batch: it makes arrays of shape"):
        graph_of(lambda x: {"y": x.sum() + jnp.zeros(2 * x.shape[0])}, {"x": np.ones((1, 2), np.float32)}, "f")


def test_counts_and_sizes_follow_the_batch():
    import jax.numpy as jnp

    def numbered(x):
        return {"y": x[:, 1:] + jnp.arange(x.shape[0])[:, None] / x.shape[0]}

    model = graph_of(numbered, {"x": np.ones((1, 3), np.float32)}, "f").SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        x = np.random.default_rng(0).normal(size=(batch, 3)).astype(np.float32)
        (found,) = session.run(None, {"x": x})
        np.testing.assert_allclose(found, x[:, 1:] + np.arange(batch)[:, None] / batch, atol=1e-6)


def test_drivers_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no learnt policy"):
        export_onnx(racer.load_policy("driver:rules"), tmp_path / "x.onnx")


def test_export_writes_it_beside_the_card(tmp_path):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    written = export(parser.parse_args(["highway-ppo", str(tmp_path / "given"), "--episodes=2", "--onnx"]))
    assert [path.name for path in written][1:] == ["README.md", "policy.onnx"]
    assert all(path.exists() for path in written)
