"""The pooled maximum and its gradient against JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np

from racer.networks.encoders import PointNet
from racer.networks.pooling import largest_row


def test_gradient_equals_that_of_the_maximum_where_no_rows_tie():
    rows = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3, 7, 5)), jnp.float32)
    weights = jnp.arange(4 * 3 * 5, dtype=jnp.float32).reshape(4, 3, 5)

    def weighed(pool):
        return jax.value_and_grad(lambda x: jnp.sum(weights * jnp.square(pool(x))))

    for got, wanted in zip(weighed(largest_row)(rows), weighed(lambda x: x.max(axis=-2))(rows), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_the_first_of_equal_rows_takes_the_gradient():
    rows = jnp.asarray([[1.0, 0.0], [1.0, 2.0], [0.0, 2.0]])
    gradient = jax.grad(lambda x: jnp.sum(largest_row(x)))(rows)
    np.testing.assert_array_equal(gradient, [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])


def test_parameters_get_the_gradient_of_the_maximum_where_empty_rows_tie():
    encoder, shape = PointNet((4, 8)), (6, 3)
    params = encoder.init(jax.random.PRNGKey(0), shape)
    observations = np.random.default_rng(1).standard_normal((32, *shape)).astype(np.float32)
    observations[:, 2:] = 0.0

    def plain(params):
        rows = jnp.maximum(observations @ params["encoder/row_0/kernel"] + params["encoder/row_0/bias"], 0.0)
        rows = rows @ params["encoder/row_1/kernel"] + params["encoder/row_1/bias"]
        return jnp.sum(jnp.square(jnp.maximum(rows.max(axis=-2), 0.0)))

    def ours(params):
        return jnp.sum(jnp.square(encoder.encode(params, jnp.asarray(observations), shape)[..., shape[1] :]))

    # Biases and inputs that are zero put kinks on ties of other kinds; move off them.
    params = {name: value + (0.1 if name.endswith("bias") else 0.0) for name, value in params.items()}
    wanted = jax.grad(plain)(params)
    for name, gradient in jax.grad(ours)(params).items():
        np.testing.assert_allclose(gradient, wanted[name], rtol=1e-4, atol=1e-4)
