"""Configuration files in YAML."""

from __future__ import annotations

import pytest

from racer.core.errors import UsageError
from racer.core.yaml_file import parse_yaml, read_yaml


def test_numbers_are_read_as_people_write_them():
    text = "a: 3e-4\nb: 1E3\nc: -2.5\nd: [1, 2]\ne: null\nf: {g: true}\nh: 1e\n"
    expected = {"a": 3e-4, "b": 1000.0, "c": -2.5, "d": [1, 2], "e": None, "f": {"g": True}, "h": "1e"}
    found = parse_yaml(text, "x")
    assert found == expected
    assert type(found["d"][0]) is int


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "file, line 3: key 'a' is there twice"),
        ("a: &x 1\nb: *x", r"file, line 2: aliases \(\*name\) are not read"),
        ("a: [1", "file, line 1: "),
        ("1: 2", "file, line 1: keys must be text, not '1'"),
        ("a: !!python/object/apply:os.system [ls]", "file, line 1: could not determine a constructor"),
        ("a: " + "[" * 50 + "]" * 50, "nested more than 16 levels deep"),
        ("a: 2024-13-45", "month"),
    ],
)
def test_what_is_not_read_is_named_with_its_line(text, message):
    with pytest.raises(UsageError, match=message) as error:
        parse_yaml(text, "file")
    assert str(error.value).startswith("file")


def test_a_file_holds_a_mapping(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("- 1\n- 2\n")
    with pytest.raises(UsageError, match="must hold keys with values"):
        read_yaml(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not text"):
        read_yaml(path)
    with pytest.raises(UsageError, match="No such file"):
        read_yaml(tmp_path / "none.yaml")
