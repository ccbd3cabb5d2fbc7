"""comma.ai's learned plant (controls challenge v2): its weights from the ONNX file, its computation in JAX.

The network is a causal transformer over the last 20 steps. Only the last position of the last block decides what comes
next, so nothing else of that block is computed. The file carries no licence and is never part of this repository.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from racer.core.errors import UsageError, shown
from racer.core.files import read_bytes
from racer.envs.lateral.plants import Memory
from racer.envs.lateral.plants.onnx_file import NotOnnx, read_tensors
from racer.envs.lateral.rules import BINS, CONTEXT, decode, encode, probabilities, sampled_tokens

__all__ = ["SHA256", "LearnedPlant", "learned_plant", "plant_logits", "read_parameters"]

SHA256 = "5beca7f07a3e9b183b4aa0402c780ddbc985416fe50ca788017b09705b4d0705"
_MAX_BYTES = 1 << 26

_BLOCKS, _WIDTH, _HEADS = 4, 128, 4
_EPSILON = 1e-6
_GELU = math.sqrt(2.0 / math.pi)

# Matrices without a name of their own, in the order in which the exporter numbered them.
_BLOCK_MATRICES = (("qkv", (128, 384)), ("out", (128, 128)), ("up", (128, 512)), ("down", (512, 128)))
_NAMED = {
    "transformer.wt_embedding.bias": ("state/bias", (64,)),
    "transformer.wt2_embedding.weight": ("token", (1024, 64)),
    "transformer.wp_embedding.weight": ("position", (CONTEXT, _WIDTH)),
    "transformer.layer_norm_f.weight": ("norm/scale", (_WIDTH,)),
    "transformer.layer_norm_f.bias": ("norm/shift", (_WIDTH,)),
    **{
        f"transformer.h.{block}.{part}.layer_norm.{kind}": (f"{block}/{part}/{short}", (_WIDTH,))
        for block in range(_BLOCKS)
        for part in ("attn", "mlp")
        for kind, short in (("weight", "scale"), ("bias", "shift"))
    },
}

Parameters = dict[str, Any]


class LearnedPlant:
    """Samples what the network says comes next.

    Args:
        parameters: of :func:`read_parameters`.
    """

    def __init__(self, parameters: Parameters) -> None:
        import jax

        self.parameters = {name: jax.numpy.asarray(value) for name, value in parameters.items()}
        self._logits = jax.jit(plant_logits)
        self._last: tuple[Any, Any, NDArray[np.float32]] | None = None

    def start(self, uniforms: NDArray[np.float64]) -> Memory:
        return {}

    def step(
        self,
        states: NDArray[np.float64],
        lataccels: NDArray[np.float64],
        uniforms: NDArray[np.float64],
        memory: Memory,
    ) -> tuple[NDArray[np.float64], Memory]:
        return decode(sampled_tokens(self._asked(states, lataccels), uniforms)), memory

    def moments(
        self, states: NDArray[np.float64], lataccels: NDArray[np.float64], memory: Memory
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        shares = probabilities(self._asked(states, lataccels))
        mean = shares @ BINS
        return mean, np.sqrt(np.maximum(shares @ np.square(BINS) - np.square(mean), 0.0))

    def _asked(self, states: NDArray[np.float64], lataccels: NDArray[np.float64]) -> NDArray[np.float32]:
        # Moments and a draw of one step come one after the other, with the same arrays.
        if self._last is None or self._last[0] is not states or self._last[1] is not lataccels:
            self._last = states, lataccels, self.logits(states, encode(lataccels))
        return self._last[2]

    def logits(self, states: NDArray[Any], tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the network's logits of the next token ``[N, 1024]`` for states ``[N, 20, 4]``, tokens ``[N, 20]``."""
        return np.asarray(self._logits(self.parameters, states.astype(np.float32), tokens.astype(np.int32)))


def plant_logits(parameters: Parameters, states: Any, tokens: Any) -> Any:
    """Return logits ``[N, 1024]`` for states ``[N, 20, 4]`` float32 and tokens ``[N, 20]`` int32 (JAX, pure)."""
    import jax
    import jax.numpy as jnp

    p = parameters
    x = jnp.concatenate([states @ p["state"] + p["state/bias"], p["token"][tokens]], axis=-1) + p["position"]
    allowed = jnp.tril(jnp.ones((CONTEXT, CONTEXT), bool))
    for block in range(_BLOCKS):
        last = block == _BLOCKS - 1
        normal = _norm(p, f"{block}/attn", x)
        query, key, value = _heads(p[f"{block}/qkv"], normal, last)
        scores = jnp.einsum("nthd,nshd->nhts", query, key) / math.sqrt(_WIDTH // _HEADS)
        scores = jnp.where(allowed[-1:] if last else allowed, scores, -jnp.inf)
        mixed = jnp.einsum("nhts,nshd->nthd", jax.nn.softmax(scores, axis=-1), value)
        if last:
            x = x[:, -1:]
        x = x + mixed.reshape(*x.shape) @ p[f"{block}/out"]
        hidden = _norm(p, f"{block}/mlp", x) @ p[f"{block}/up"]
        hidden = 0.5 * hidden * (1.0 + jnp.tanh(_GELU * (hidden + 0.044715 * hidden**3)))
        x = x + hidden @ p[f"{block}/down"]
    return _norm(p, "norm", x[:, -1]) @ p["head"]


@lru_cache(maxsize=4)
def learned_plant(path: str) -> LearnedPlant:
    """Return the plant of the file at ``path``; one plant a path in a process.

    Raises:
        UsageError: as :func:`read_parameters`.
    """
    return LearnedPlant(read_parameters(path))


def read_parameters(path: str | Path) -> dict[str, NDArray[np.float32]]:
    """Read the network's parameters.

    Raises:
        UsageError: the file is missing, no ONNX file, or not the one that is known; the message shows both hashes.
    """
    data = read_bytes(path, _MAX_BYTES)
    found = hashlib.sha256(data).hexdigest()
    try:
        tensors = read_tensors(data)
    except NotOnnx as error:
        raise UsageError(f"plant {shown(str(path))} is not an ONNX file: {error}") from error
    if found != SHA256:
        raise UsageError(f"plant {shown(str(path))} is another one than is known: its SHA-256 is {found}, not {SHA256}")
    return _named(path, tensors)


def _named(path: str | Path, tensors: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    parameters = {short: tensors.get(name, np.zeros(0, np.float32)) for name, (short, _) in _NAMED.items()}
    shapes = dict(_NAMED.values())
    order = sorted((name for name in tensors if name.startswith("onnx::MatMul_")), key=lambda n: int(n.split("_")[1]))
    matrices = [("state", (4, 64))]
    matrices += [(f"{block}/{name}", shape) for block in range(_BLOCKS) for name, shape in _BLOCK_MATRICES]
    matrices += [("head", (_WIDTH, 1024))]
    shapes |= dict(matrices)
    parameters |= {short: tensors[name] for name, (short, _) in zip(order, matrices, strict=False)}
    for short, shape in shapes.items():
        if short not in parameters or parameters[short].shape != shape:
            raise UsageError(f"plant {shown(str(path))} lacks the weights {short!r} of shape {list(shape)}")
    return parameters


def _norm(parameters: Parameters, name: str, x: Any) -> Any:
    import jax.numpy as jnp

    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return centred / jnp.sqrt(variance + _EPSILON) * parameters[f"{name}/scale"] + parameters[f"{name}/shift"]


def _heads(kernel: Any, normal: Any, last: bool) -> tuple[Any, Any, Any]:
    """Return query, key and value ``[N, T, heads, 32]``; the query of the last position alone where ``last``."""
    lead = (*normal.shape[:2], _HEADS, _WIDTH // _HEADS)
    if last:
        query = normal[:, -1:] @ kernel[:, :_WIDTH]
        both = (normal @ kernel[:, _WIDTH:]).reshape(*lead[:2], 2, *lead[2:])
        return query.reshape(lead[0], 1, *lead[2:]), both[:, :, 0], both[:, :, 1]
    three = (normal @ kernel).reshape(*lead[:2], 3, *lead[2:])
    return three[:, :, 0], three[:, :, 1], three[:, :, 2]
