"""Configurations refuse what they do not know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from racer.core.config import NamedNumbers, check_fields, from_mapping, option, swept_names
from racer.core.errors import UsageError, nearest


@dataclass(frozen=True)
class Example:
    discount: float = option(0.99, "Discount.", above=0, high=1, swept=True)
    count: int = option(3, "A count.", low=1, high=1_000)
    mode: str = option("slow", "A mode.", choices=("slow", "fast"))
    flag: bool = option(True, "A flag.")
    limit: float | None = option(None, "A limit.", above=0, swept=True)
    risk: float | str = option("own", "A number, or own.", low=0, high=1, choices=("own",), swept=True)
    hidden: tuple[int, ...] = option((256, 256), "Widths.", empty=False)
    rows: tuple[int, ...] = option((), "Widths.")
    scale: float | tuple[float, ...] | None = option(None, "A factor, or one each.", above=0)
    first: NamedNumbers = option((), "Actions by name.", low=-1, high=1)
    encoder: Mapping[str, Any] = option({"kind": "flat"}, "An encoder.")
    memory: str | Mapping[str, Any] | None = option(None, "A memory.")
    view: str | None = option(None, "A view.")
    correlation: float = option(0.0, "A correlation.", low=0, below=1)
    span: tuple[float, float] = option((0.0, 1.0), "From and to.")

    def __post_init__(self) -> None:
        check_fields(self, "example")


def test_defaults_and_overrides() -> None:
    assert from_mapping(Example, {"count": 7}, "key") == Example(count=7)
    assert Example().encoder is not Example().encoder


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"discont": 0.5}, "did you mean 'discount'"),
        ({"discount": 1.5}, "finite number above 0 and at most 1, not 1.5"),
        ({"discount": 0.0}, "above 0"),
        ({"discount": float("nan")}, "finite"),
        ({"discount": "much"}, "finite number"),
        ({"discount": None}, "finite number"),
        ({"discount": np.array([0.5, 2.0])}, "each value of example 'discount'"),
        ({"discount": np.array([0.5, np.nan])}, "each value of example 'discount'"),
        ({"count": True}, "whole number"),
        ({"count": np.array([1, 2])}, "whole number"),
        ({"count": 2.0}, "whole number"),
        ({"count": 0}, "at least 1"),
        ({"count": 10**5_000}, "cannot be shown"),
        ({"count": 1_001}, "at most 1000, not 1001"),
        ({"mode": "fsat"}, "'fast'"),
        ({"mode": 3}, "one of slow, fast"),
        ({"mode": ["slow"]}, "one of slow, fast"),
        ({"flag": 1}, "True or False"),
        ({"limit": float("inf")}, "finite number above 0 or None"),
        ({"risk": "onw"}, "did you mean 'own'"),
        ({"risk": 1.5}, "finite number at least 0 and at most 1 or one of own"),
        ({"risk": None}, "one of own"),
        ({"hidden": ()}, "at least one"),
        ({"hidden": (3, 0)}, "each at least 1"),
        ({"hidden": (3, True)}, "whole numbers"),
        ({"hidden": (10**10,)}, "at most 65536"),
        ({"hidden": (1.5,)}, "whole numbers"),
        ({"hidden": 64}, "a tuple"),
        ({"hidden": (1,) * 100_000}, "a tuple"),
        ({"scale": -1.0}, "above 0"),
        ({"scale": (1.0, 0.0)}, "above 0"),
        ({"first": {"gas": 2.0}}, "by name"),
        ({"first": {3: 0.2}}, "by name"),
        ({"first": "gas"}, "by name"),
        ({"first": 0.2}, "by name"),
        ({"first": [["gas", 0.1], ["gas", 0.2]]}, "by name"),
        ({"encoder": {"kind": float("nan")}}, "JSON"),
        ({"encoder": {1: 2}}, "JSON"),
        ({"encoder": {"kind": object()}}, "JSON"),
        ({"encoder": None}, "JSON"),
        ({"memory": 3}, "text or a mapping of names to JSON values or None"),
        ({"view": "a\0"}, "text or None"),
        ({"correlation": 1.0}, "below 1"),
        ({"span": (1.0,)}, "a tuple"),
        ("text", "names with values"),
    ],
)
def test_wrong_values_are_named(values: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        from_mapping(Example, values, "key")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_values_are_kept_in_one_form() -> None:
    made = Example(
        discount=1,
        count=np.int64(4),
        hidden=[np.int32(3), 4],
        scale=[1, np.float32(0.5)],
        first={"steer": 0.5, "gas": np.float64(1)},
        encoder={"kind": "rows", "widths": (np.int64(8),)},
        memory="none",
        view="none",
    )
    assert type(made.discount) is float
    assert type(made.count) is int
    assert made.hidden == (3, 4)
    assert {type(width) for width in made.hidden} == {int}
    assert made.scale == (1.0, 0.5)
    assert made.first == (("gas", 1.0), ("steer", 0.5))
    assert made.encoder == {"kind": "rows", "widths": [8]}
    assert made.memory is None
    assert made.view is None
    assert Example(first=made.first).first == made.first
    assert Example(first=None).first == ()
    assert Example(risk=0.5).risk == 0.5


def test_swept_fields_take_arrays() -> None:
    class Traced:
        dtype, shape = "float32", (3,)

    traced, values = Traced(), np.array([0.5, 1.0])
    assert Example(discount=traced).discount is traced
    assert Example(discount=values).discount is values
    assert swept_names(Example) == ("discount", "limit", "risk")
    with pytest.raises(UsageError):
        Example(correlation=traced)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text() | st.integers(), children, max_size=3),
    max_leaves=6,
)


@given(name=st.sampled_from(sorted(Example.__dataclass_fields__)), value=_VALUES)
def test_any_value_is_taken_or_refused_in_one_line(name: str, value: Any) -> None:
    try:
        made = Example(**{name: value})
    except UsageError as error:
        message = str(error)
    else:
        assert Example(**{name: getattr(made, name)}) == made
        return
    assert len(message.splitlines()) == 1
    assert name in message


def test_nearest() -> None:
    assert nearest("vehicle_count", ["vehicles_count", "lanes_count"]) == "vehicles_count"
    assert nearest("zzz", ["vehicles_count"]) is None
