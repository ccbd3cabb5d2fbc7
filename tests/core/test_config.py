"""Configurations refuse what they do not know."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from racer.core.config import check_fields, from_mapping, option
from racer.core.errors import UsageError, nearest


@dataclass(frozen=True)
class Example:
    discount: float = option(0.99, "Discount.", above=0, high=1)
    count: int = option(3, "A count.", low=1)
    mode: str = option("slow", "A mode.", choices=("slow", "fast"))

    def __post_init__(self) -> None:
        check_fields(self, "example")


def test_defaults_and_overrides() -> None:
    assert from_mapping(Example, {"count": 7}, "key") == Example(count=7)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"discont": 0.5}, "did you mean 'discount'"),
        ({"discount": 1.5}, "at most 1"),
        ({"discount": 0.0}, "above 0"),
        ({"discount": float("nan")}, "finite"),
        ({"discount": "much"}, "finite number"),
        ({"count": True}, "finite number"),
        ({"count": 0}, "at least 1"),
        ({"mode": "fsat"}, "'fast'"),
    ],
)
def test_wrong_values_are_named(values: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        from_mapping(Example, values, "key")


def test_nearest() -> None:
    assert nearest("vehicle_count", ["vehicles_count", "lanes_count"]) == "vehicles_count"
    assert nearest("zzz", ["vehicles_count"]) is None
