"""A JAX function written as an ONNX graph.

The function is traced for a batch of a size that is a symbol, as JAX exports functions; every primitive becomes a few
ONNX operators, and where one needs the size of the batch, the graph reads it off its first input. What has no
translation here is an error that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from jax.export import symbolic_shape
from jax.extend.core import Literal
from onnx import helper, numpy_helper

from racer.core.errors import RacerError

__all__ = ["BATCH", "OPSET", "graph_of"]

BATCH = "N"
"""Name of the first axis of every input and output."""

OPSET = 18

_SAME = {
    "abs": "Abs", "add": "Add", "and": "And", "ceil": "Ceil", "copy": "Identity", "copy_p": "Identity", "cos": "Cos",
    "div": "Div", "eq": "Equal", "erf": "Erf", "exp": "Exp", "floor": "Floor", "ge": "GreaterOrEqual",
    "gt": "Greater", "le": "LessOrEqual", "log": "Log", "logistic": "Sigmoid", "lt": "Less", "max": "Max", "min": "Min",
    "mul": "Mul", "neg": "Neg", "not": "Not", "or": "Or", "pow": "Pow", "sign": "Sign", "sin": "Sin", "sqrt": "Sqrt",
    "stop_gradient": "Identity", "sub": "Sub", "tan": "Tan", "tanh": "Tanh", "xor": "Xor",
}  # fmt: skip
"""Primitives that are one ONNX operator on the same inputs."""

_REDUCTIONS = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin",
               "reduce_prod": "ReduceProd"}  # fmt: skip
_END = np.iinfo(np.int64).max
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def graph_of(
    function: Callable[..., Mapping[str, Any]], inputs: Mapping[str, np.ndarray], name: str
) -> onnx.ModelProto:
    """Return the ONNX model of ``function(**inputs)``, which returns outputs by name.

    Args:
        function: of JAX arrays.
        inputs: an example ``[1, ...]`` of each: types and shapes are theirs, but for the first axis, the batch.
        name: of the graph.

    Raises:
        RacerError: the function uses what cannot be written here.
    """
    (size,) = symbolic_shape(BATCH)
    described = {
        key: jax.ShapeDtypeStruct((size, *value.shape[1:]), value.dtype) for key, value in sorted(inputs.items())
    }
    closed, shapes = jax.make_jaxpr(lambda values: function(**values), return_shape=True)(described)
    writer = _Writer(next(iter(inputs)), size)
    # A mapping is flattened in the order of its sorted names.
    variables = dict(zip(closed.jaxpr.invars, described, strict=True))
    constants = {var: writer.constant(np.asarray(value)) for var, value in
                 zip(closed.jaxpr.constvars, closed.consts, strict=True)}  # fmt: skip
    flat = _inlined(closed.jaxpr, {**variables, **constants}, writer)
    for equation in flat.needed:
        writer.write(*equation)
    outputs = sorted(shapes)
    for output, value in zip(outputs, flat.outputs, strict=True):
        writer.node("Identity", [value], output)
    used = {name for node in writer.nodes for name in node.input}
    graph = helper.make_graph(
        writer.nodes, name,
        [_described(key, described[key].shape, described[key].dtype) for key in inputs],
        [_described(key, shapes[key].shape, shapes[key].dtype) for key in outputs],
        [value for name, value in writer.constants.items() if name in used],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="racer")
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model


def _described(name: str, shape: Sequence[Any], dtype: Any) -> Any:
    sizes = [size if isinstance(size, int) else str(size) for size in shape]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), sizes)


class _Flat:
    """Equations without nested functions, those only that the outputs need.

    Attributes:
        needed: primitive, parameters, names and shapes of inputs, names, shapes and types of outputs.
        outputs: names of the outputs' values.
    """

    def __init__(self, equations: list[Any], outputs: list[str]) -> None:
        wanted, kept = set(outputs), []
        for equation in reversed(equations):
            if wanted & set(equation[4]):
                wanted |= set(equation[2])
                kept.append(equation)
        self.needed, self.outputs = kept[::-1], outputs


def _inlined(jaxpr: Any, names: dict[Any, str], writer: _Writer) -> _Flat:
    equations: list[Any] = []

    def name_of(atom: Any, known: Mapping[Any, str]) -> str:
        if not isinstance(atom, Literal):
            return known[atom]
        kind: Any = atom.aval
        return writer.constant(np.asarray(atom.val, kind.dtype))

    def walk(jaxpr: Any, known: dict[Any, str]) -> list[str]:
        for equation in jaxpr.eqns:
            given = [name_of(atom, known) for atom in equation.invars]
            inner = next((v for k, v in equation.params.items() if k in ("jaxpr", "call_jaxpr", "fun_jaxpr")), None)
            if inner is not None and equation.primitive.name not in ("scan", "while", "cond"):
                core = getattr(inner, "jaxpr", inner)
                held = [writer.constant(np.asarray(value)) for value in getattr(inner, "consts", ())]
                bound = {**dict(zip(core.constvars, held, strict=True)), **dict(zip(core.invars, given, strict=True))}
                results = walk(core, bound)
            else:
                results = [writer.fresh() for _ in equation.outvars]
                equations.append((
                    equation.primitive.name, equation.params, given, [atom.aval.shape for atom in equation.invars],
                    results, [atom.aval for atom in equation.outvars],
                ))  # fmt: skip
            known.update(zip(equation.outvars, results, strict=True))
        return [name_of(atom, known) for atom in jaxpr.outvars]

    outputs = walk(jaxpr, names)
    return _Flat(equations, outputs)


class _Writer:
    """Collects nodes and constants.

    Args:
        first: name of an input, whose first axis is the batch.
        batch: the symbol that stands for its size in traced shapes.
    """

    def __init__(self, first: str, batch: Any) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self._count = 0
        self._first, self._batch, self._read = first, batch, ""

    def fresh(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def constant(self, value: np.ndarray) -> str:
        name = self.fresh()
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value).reshape(np.shape(value)), name)
        return name

    def whole(self, values: Sequence[int]) -> str:
        return self.constant(np.asarray(values, np.int64))

    def node(self, kind: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        output = output or self.fresh()
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def batch(self) -> str:
        """Return the name of the size of the batch, int64 ``[1]``."""
        self._read = self._read or self.node("Shape", [self._first], start=0, end=1)
        return self._read

    def shape(self, sizes: Sequence[Any]) -> str:
        """Return the name of a shape, int64 ``[K]``, in which the size of the batch may stand.

        Raises:
            RacerError: it depends on that size in another way.
        """
        if all(isinstance(size, int) for size in sizes):
            return self.whole(sizes)
        if any(not isinstance(size, int) and size != self._batch for size in sizes):
            raise RacerError(f"the policy cannot be written in ONNX for every batch: it makes arrays of shape {sizes}")
        parts = [self.whole([size]) if isinstance(size, int) else self.batch() for size in sizes]
        return self.node("Concat", parts, axis=0)

    def reshaped(self, value: str, shape: Sequence[Any], output: str | None = None) -> str:
        # ONNX itself finds one size.
        sizes = [size if isinstance(size, int) else -1 for size in shape]
        return self.node("Reshape", [value, self.whole(sizes) if sizes.count(-1) < 2 else self.shape(shape)], output)

    def counted(self, size: Any) -> str:
        """Return the name of the numbers 0, 1, ... below a size, int64."""
        if isinstance(size, int):
            return self.constant(np.arange(size, dtype=np.int64))
        zero, one = (self.constant(np.asarray(value, np.int64)) for value in (0, 1))
        return self.node("Range", [zero, self.reshaped(self.shape([size]), []), one])

    def cast(self, value: str, dtype: Any, output: str | None = None) -> str:
        return self.node("Cast", [value], output, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def write(
        self, primitive: str, params: Mapping[str, Any], given: list[str], shapes: list[Any], outs: list[str],
        avals: list[Any],
    ) -> None:  # fmt: skip
        """Write one equation.

        Raises:
            RacerError: it has no translation.
        """
        out, aval = outs[0], avals[0]
        if primitive in _SAME:
            self.node(_SAME[primitive], given, out)
        elif primitive in _REDUCTIONS:
            self.node(_REDUCTIONS[primitive], [given[0], self.whole(params["axes"])], out, keepdims=0)
        elif primitive in ("reshape", "squeeze", "expand_dims"):
            self.reshaped(given[0], aval.shape, out)
        else:
            method = getattr(self, f"_{primitive}", None)
            if method is None:
                raise RacerError(f"the policy cannot be written in ONNX: JAX's {primitive!r} has no translation")
            method(params, given, shapes, out, aval)

    def _ne(self, params: Any, given: list[str], shapes: Any, out: str, aval: Any) -> None:
        self.node("Not", [self.node("Equal", given)], out)

    def _square(self, params: Any, given: list[str], shapes: Any, out: str, aval: Any) -> None:
        self.node("Mul", [given[0], given[0]], out)

    def _integer_pow(self, params: Any, given: list[str], shapes: Any, out: str, aval: Any) -> None:
        self.node("Pow", [given[0], self.constant(np.asarray(params["y"], aval.dtype))], out)

    def _rsqrt(self, params: Any, given: list[str], shapes: Any, out: str, aval: Any) -> None:
        self.node("Reciprocal", [self.node("Sqrt", given)], out)

    def _log1p(self, params: Any, given: list[str], shapes: Any, out: str, aval: Any) -> None:
        # The same function of the rounded sum, divided by the rounding (Kahan): log(1 + x) loses small x.
        one = self.constant(np.asarray(1.0, aval.dtype))
        total = self.node("Add", [given[0], one])
        apart = self.node("Sub", [total, one])
        ratio = self.node("Mul", [self.node("Log", [total]), self.node("Div", [given[0], apart])])
        zero = self.constant(np.asarray(0.0, aval.dtype))
        self.node("Where", [self.node("Equal", [apart, zero]), given[0], ratio], out)

    def _round(self, params: Any, given: list[str], shapes: Any, out: str, aval: Any) -> None:
        if int(params["rounding_method"]) != 1:
            raise RacerError("the policy cannot be written in ONNX: it rounds halves away from zero")
        self.node("Round", given, out)

    def _rem(self, params: Any, given: list[str], shapes: Any, out: str, aval: Any) -> None:
        self.node("Mod", given, out, fmod=1)

    def _clamp(self, params: Any, given: list[str], shapes: Any, out: str, aval: Any) -> None:
        low, value, high = given
        self.node("Min", [self.node("Max", [value, low]), high], out)

    def _select_n(self, params: Any, given: list[str], shapes: Any, out: str, aval: Any) -> None:
        which, no, yes = given
        self.node("Where", [which, yes, no], out)

    def _convert_element_type(self, params: Any, given: list[str], shapes: Any, out: str, aval: Any) -> None:
        self.cast(given[0], params["new_dtype"], out)

    def _broadcast_in_dim(self, params: Any, given: list[str], shapes: Any, out: str, aval: Any) -> None:
        spread = [1] * len(aval.shape)
        for size, axis in zip(shapes[0], params["broadcast_dimensions"], strict=True):
            spread[axis] = size
        # To expand an axis to 1 leaves it as it is.
        sizes = [1 if size == to else to for size, to in zip(spread, aval.shape, strict=True)]
        self.node("Expand", [self.reshaped(given[0], spread), self.shape(sizes)], out)

    def _transpose(self, params: Any, given: list[str], shapes: Any, out: str, aval: Any) -> None:
        self.node("Transpose", given, out, perm=list(params["permutation"]))

    def _concatenate(self, params: Any, given: list[str], shapes: Any, out: str, aval: Any) -> None:
        self.node("Concat", given, out, axis=int(params["dimension"]))

    def _stack(self, params: Any, given: list[str], shapes: Any, out: str, aval: Any) -> None:
        axis = int(params["axis"])
        shape = [*shapes[0][:axis], 1, *shapes[0][axis:]]
        self.node("Concat", [self.reshaped(value, shape) for value in given], out, axis=axis)

    def _slice(self, params: Any, given: list[str], shapes: Any, out: str, aval: Any) -> None:
        steps = params["strides"] or [1] * len(aval.shape)
        # What ends with the axis ends wherever that is.
        ends = [_END if end == size else end for end, size in zip(params["limit_indices"], shapes[0], strict=True)]
        parts = (params["start_indices"], ends, range(len(aval.shape)), steps)
        self.node("Slice", [given[0], *(self.whole(list(part)) for part in parts)], out)

    def _iota(self, params: Any, given: list[str], shapes: Any, out: str, aval: Any) -> None:
        axis, shape = params["dimension"], [1] * len(aval.shape)
        shape[axis] = aval.shape[axis]
        numbers = self.reshaped(self.cast(self.counted(shape[axis]), aval.dtype), shape)
        self.node("Expand", [numbers, self.shape(aval.shape)], out)

    def _dim_as_value(self, params: Any, given: list[str], shapes: Any, out: str, aval: Any) -> None:
        self.cast(self.reshaped(self.shape([params["dim"]]), []), aval.dtype, out)

    def _reduce_or(self, params: Any, given: list[str], shapes: Any, out: str, aval: Any) -> None:
        numbers = self.cast(given[0], np.int32)
        self.cast(self.node("ReduceMax", [numbers, self.whole(params["axes"])], keepdims=0), np.bool_, out)

    def _reduce_and(self, params: Any, given: list[str], shapes: Any, out: str, aval: Any) -> None:
        numbers = self.cast(given[0], np.int32)
        self.cast(self.node("ReduceMin", [numbers, self.whole(params["axes"])], keepdims=0), np.bool_, out)

    def _argmax(self, params: Any, given: list[str], shapes: Any, out: str, aval: Any, kind: str = "ArgMax") -> None:
        axis, = params["axes"]
        self.cast(self.node(kind, given, axis=int(axis), keepdims=0), aval.dtype, out)

    def _argmin(self, params: Any, given: list[str], shapes: Any, out: str, aval: Any) -> None:
        self._argmax(params, given, shapes, out, aval, "ArgMin")

    def _dot_general(self, params: Any, given: list[str], shapes: Any, out: str, aval: Any) -> None:
        (left_sum, right_sum), (left_batch, right_batch) = params["dimension_numbers"]
        letters = iter(_LETTERS)
        left = [next(letters) for _ in shapes[0]]
        right = [next(letters) for _ in shapes[1]]
        for mine, theirs in [*zip(left_sum, right_sum, strict=True), *zip(left_batch, right_batch, strict=True)]:
            right[theirs] = left[mine]
        batch = [left[axis] for axis in left_batch]
        summed = {left[axis] for axis in left_sum}
        rest = [letter for letter in (*left, *right) if letter not in summed and letter not in batch]
        self.node("Einsum", given, out, equation=f"{''.join(left)},{''.join(right)}->{''.join([*batch, *rest])}")

    def _gather(self, params: Any, given: list[str], shapes: Any, out: str, aval: Any) -> None:
        """Whole windows at given places: of the axes that are looked up one element, of the others all."""
        numbers, sizes, shape = params["dimension_numbers"], params["slice_sizes"], shapes[0]
        if len(shapes[1]) == 1 and not numbers.operand_batching_dims:
            self._window(params, given, shape, out, aval)
            return
        looked = [*numbers.operand_batching_dims, *numbers.start_index_map]
        window = [axis for axis in range(len(shape)) if axis not in looked]
        if any(sizes[axis] != 1 for axis in looked) or any(sizes[axis] != shape[axis] for axis in window) or any(
            axis in numbers.collapsed_slice_dims for axis in window
        ) or set(looked) != {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}:
            raise RacerError("the policy cannot be written in ONNX: it gathers parts of axes")
        index = self._places(given[1], shapes[1], numbers.start_indices_batching_dims)
        found = self.node("GatherND", [self.node("Transpose", [given[0]], perm=looked + window), index])
        rank, offsets = len(aval.shape), list(numbers.offset_dims)
        order = [axis for axis in range(rank) if axis not in offsets] + offsets
        self.node("Transpose", [found], out, perm=list(np.argsort(order)))

    def _window(self, params: Any, given: list[str], shape: Sequence[Any], out: str, aval: Any) -> None:
        """Write a slice that begins at one given place: what a slice of an array with a batch becomes."""
        numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
        axes = list(numbers.start_index_map)
        if any(size != whole for axis, (size, whole) in enumerate(zip(sizes, shape, strict=True)) if axis not in axes):
            raise RacerError("the policy cannot be written in ONNX: it gathers parts of axes")
        begin = self.cast(given[1], np.int64)
        end = self.node("Add", [begin, self.shape([sizes[axis] for axis in axes])])
        self.reshaped(self.node("Slice", [given[0], begin, end, self.whole(axes)]), aval.shape, out)

    def _scatter(self, params: Any, given: list[str], shapes: Any, out: str, aval: Any) -> None:
        """Whole windows written at given places."""
        numbers, shape = params["dimension_numbers"], shapes[0]
        looked = [*numbers.operand_batching_dims, *numbers.scatter_dims_to_operand_dims]
        window = [axis for axis in range(len(shape)) if axis not in looked]
        updates, sizes = list(numbers.update_window_dims), shapes[2]
        if set(looked) != {*numbers.inserted_window_dims, *numbers.operand_batching_dims} or [
            sizes[axis] for axis in updates
        ] != [shape[axis] for axis in window]:
            raise RacerError("the policy cannot be written in ONNX: it writes parts of axes")
        index = self._places(given[1], shapes[1], numbers.scatter_indices_batching_dims)
        order = [axis for axis in range(len(sizes)) if axis not in updates] + updates
        values = self.node("Transpose", [given[2]], perm=order)
        moved = self.node("Transpose", [given[0]], perm=looked + window)
        written = self.node("ScatterND", [moved, index, values])
        self.node("Transpose", [written], out, perm=list(np.argsort(looked + window)))

    def _places(self, index: str, shape: Sequence[int], batching: Sequence[int]) -> str:
        """Return indices ``[..., K]`` as int64, after the numbers of the axes that both sides share."""
        parts = []
        for axis in batching:
            numbers = self.reshaped(self.counted(shape[axis]), [-1 if i == axis else 1 for i in range(len(shape))])
            parts.append(self.node("Expand", [numbers, self.shape([*shape[:-1], 1])]))
        parts.append(self.cast(index, np.int64))
        return parts[0] if len(parts) == 1 else self.node("Concat", parts, axis=len(shape) - 1)
