"""The learned plant against onnxruntime, and exact scores against a transcription of the official rules."""

from __future__ import annotations

import hashlib

import jax
import numpy as np
import pytest

from racer.core.errors import UsageError
from racer.envs.lateral.controllers import PID
from racer.envs.lateral.generator import generate_route
from racer.envs.lateral.plants import make_plant
from racer.envs.lateral.plants.learned import LearnedPlant, plant_logits, read_parameters
from racer.envs.lateral.plants.onnx_file import NotOnnx, read_tensors
from racer.envs.lateral.routes import read_route, write_route
from racer.envs.lateral.rules import BINS, DRAWS, TEMPERATURE, decode, encode, sampled_tokens
from racer.envs.lateral.scoring import official_draws, salted_draws, score
from tests.envs.lateral.official import PidController, Session, WavyController, official_cost
from tests.envs.lateral.plant_file import PLANT_FILE, needs_plant


@pytest.fixture(scope="module")
def session():
    pytest.importorskip("onnxruntime", reason="install the extra [lateral] to compare with onnxruntime")
    return Session(PLANT_FILE)


class RuntimePlant(LearnedPlant):
    """The plant with onnxruntime's logits."""

    def __init__(self, session):
        self._session = session

    def step(self, states, lataccels, uniforms, memory):
        return decode(sampled_tokens(self._session.logits(states, encode(lataccels)), uniforms)), memory


class Wavy:
    """The transcription's other controller, for a batch."""

    def __init__(self):
        self.calls = 80

    def __call__(self, signals):
        self.calls += 1
        ahead = signals.future[:, 1:6, 0].mean(axis=1)
        return 0.4 * ahead - 0.1 * signals.future[:, 0, 1] + 0.05 * np.sin(0.3 * self.calls) + 0.1 * signals.error


@needs_plant
def test_logits_are_onnxruntimes_on_states_that_occur(session):
    plant, found, seen = make_plant(str(PLANT_FILE)), [], []
    wide = {name: value.astype(np.float64) for name, value in read_parameters(PLANT_FILE).items()}

    class Watching(LearnedPlant):
        def __init__(self):
            pass

        def step(self, states, lataccels, uniforms, memory):
            seen.append((states, encode(lataccels)))
            return plant.step(states, lataccels, uniforms, memory)

    routes = [generate_route(0, "validation", i) for i in range(8)]
    score(Watching(), lambda simulation: PID(), routes, salted_draws(8, 1))
    for states, tokens in seen[::40]:
        states = states.astype(np.float32)
        own, theirs = plant.logits(states, tokens), session.logits(states, tokens)
        with jax.enable_x64(True):
            exact = np.asarray(plant_logits(wide, np.asarray(states, np.float64), tokens))
        span = exact.max() - exact.min()
        found.append((np.abs(own - theirs).max() / span, np.abs(own - exact).max(), np.abs(theirs - exact).max()))
    apart, own_error, their_error = np.max(found, axis=0)
    assert len(found) == 10
    assert apart < 2e-5
    # Both are float32, whose last bits depend on the processor; ours is nearer to what the network says in float64.
    assert own_error < their_error


@needs_plant
@pytest.mark.parametrize(("one_by_one", "batched"), [(PidController, PID), (WavyController, Wavy)])
def test_scores_are_the_official_ones(tmp_path, session, one_by_one, batched):
    paths = []
    for number in range(2):
        route = generate_route(0, "test", number)
        path = tmp_path / f"{number:05d}.csv"
        write_route(path, route)
        paths.append(path)
    lines = paths[1].read_text().splitlines()
    paths[1].write_text("\n".join(lines[:444]) + "\n")
    expected = [official_cost(path, one_by_one(), session) for path in paths]
    routes, draws = [read_route(path) for path in paths], official_draws([str(path) for path in paths])
    found = score(RuntimePlant(session), lambda simulation: batched(), routes, draws)
    np.testing.assert_allclose(np.array(found.costs).T, expected, atol=1e-6, rtol=0)
    # Our own logits give the same tokens but where a draw falls between two of them: see the rollouts below.
    own = score(make_plant(str(PLANT_FILE)), lambda simulation: batched(), routes, draws)
    np.testing.assert_allclose(np.array(own.costs).T, expected, atol=1e-6, rtol=0)


@needs_plant
@pytest.mark.slow
def test_rollouts_are_onnxruntimes_on_99_of_100_routes(session):
    routes = [generate_route(0, "test", i) for i in range(100)]
    draws = salted_draws(100, 3)
    own = score(make_plant(str(PLANT_FILE)), lambda simulation: PID(), routes, draws)
    reference = score(RuntimePlant(session), lambda simulation: PID(), routes, draws)
    same = (own.lataccels == reference.lataccels).all(axis=1)
    assert same.mean() >= 0.99


@needs_plant
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pid_costs_on_generated_routes_what_it_costs_on_recorded_ones():
    routes = [generate_route(0, "test", i) for i in range(1000)]
    # Ten salted seed sets in turn, as benchmarks/lateral.py deals them out.
    draws = np.stack([np.random.default_rng([1 + place % 10, place]).random(DRAWS) for place in range(1000)])
    scores = score(make_plant(str(PLANT_FILE)), lambda simulation: PID(), routes, draws, batch=128)
    assert abs(scores.costs.total.mean() - 111) < 5


@needs_plant
def test_moments_are_those_of_the_tokens_that_are_drawn():
    plant, rng = make_plant(str(PLANT_FILE)), np.random.default_rng(0)
    states = rng.normal(0.0, 0.3, (3, 20, 4)) + np.array([0.0, 0.0, 25.0, 0.0])
    lataccels = np.cumsum(rng.normal(0.0, 0.05, (3, 20)), axis=1)
    mean, deviation = plant.moments(states, lataccels, {})
    shares = np.exp(plant.logits(states, encode(lataccels)).astype(np.float64) / TEMPERATURE)
    shares /= shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(mean, shares @ BINS, atol=1e-5)
    np.testing.assert_allclose(deviation, np.sqrt(((BINS - mean[:, None]) ** 2 * shares).sum(axis=1)), rtol=1e-3)
    # What was asked last is kept; another question is answered anew, and the first again.
    uniforms = np.full(3, 0.5)
    first = plant.step(states, lataccels, uniforms, {})[0]
    other = plant.step(states + np.array([1.0, 0.0, 0.0, 0.0]), lataccels, uniforms, {})[0]
    assert (first != other).any()
    np.testing.assert_array_equal(plant.step(states, lataccels, uniforms, {})[0], first)


@needs_plant
def test_another_file_is_refused_with_both_hashes(tmp_path):
    data = bytearray(PLANT_FILE.read_bytes())
    data[-20000] ^= 1
    path = tmp_path / "other.onnx"
    path.write_bytes(bytes(data))
    with pytest.raises(UsageError) as error:
        read_parameters(path)
    assert hashlib.sha256(bytes(data)).hexdigest() in str(error.value)
    assert hashlib.sha256(PLANT_FILE.read_bytes()).hexdigest() in str(error.value)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x3a\xff\xff\xff\xff\x0f", b"\x80" * 12, b"\x3a\x02\x2a\x00"])
def test_what_is_no_onnx_file_is_refused(tmp_path, data):
    path = tmp_path / "plant.onnx"
    path.write_bytes(data)
    with pytest.raises(UsageError, match="is not an ONNX file"):
        read_parameters(path)


@needs_plant
def test_a_file_cut_anywhere_is_no_onnx_file():
    data = PLANT_FILE.read_bytes()
    assert len(read_tensors(data)) > 30
    for length in (1, 100, 5000, 200_000, len(data) - 300_000):
        with pytest.raises(NotOnnx):
            read_tensors(data[:length])


@needs_plant
def test_the_reader_finds_what_the_onnx_package_finds():
    onnx = pytest.importorskip("onnx", reason="install the extra [lateral] to compare with the onnx package")
    found = read_tensors(PLANT_FILE.read_bytes())
    initializers = [t for t in onnx.load(str(PLANT_FILE)).graph.initializer if t.data_type == 1]
    assert {t.name for t in initializers} == set(found)
    for tensor in initializers:
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), found[tensor.name])
