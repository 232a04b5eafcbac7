"""What is said of a step that was not in the cache."""

from hypothesis import given, strategies as st

from barque.builder.explain import explain
from barque.builder.keys import key_of


def test_a_first_run_is_told_as_one():
    assert explain({"root": "a"}, None) == ["this step has not been run before"]


def test_the_file_that_changed_is_named():
    before = {"root": "r", "detail": {"d": "0", "d/a": "1", "d/b": "2"}, "actions": [["copy", {}]]}
    now = {"root": "r", "detail": {"d": "0", "d/a": "x", "d/c": "3"}, "actions": [["copy", {"taken": 1}]]}
    assert explain(now, before) == ["file d/a changed", "file d/c is new", "file d/b is gone"]


def test_the_variable_that_changed_is_named_and_its_value_is_not():
    found = explain({"root": "r", "env": ["A=secret", "B=1"]}, {"root": "r", "env": ["A=old", "C=1"]})
    assert found == ["the variable A changed", "the variable B is new", "the variable C is gone"]
    assert "secret" not in " ".join(found)


def test_what_lies_below_and_settings_are_told():
    assert explain({"root": "a", "user": "u"}, {"root": "b", "user": "v"}) == [
        "a step before it gave other files", "the user changed"
    ]  # fmt: skip
    one = {"root": "r", "actions": [["copy", {"owner": "a"}]]}
    assert explain(one, {"root": "r", "actions": [["copy", {"owner": "b"}]]}) == ["--chown changed"]


def test_many_differences_are_counted():
    now = {"detail": {f"f{i}": "1" for i in range(20)}}
    assert explain(now, {"detail": {}})[-1] == "15 more files differ"


def test_the_same_facts_mean_that_the_result_was_removed():
    assert "removed from the cache" in explain({"root": "r"}, {"root": "r"})[0]


@given(st.dictionaries(st.text(max_size=4), st.text(max_size=4)))
def test_details_do_not_tell_steps_apart(detail):
    assert key_of({"kind": "files", "detail": detail}) == key_of({"kind": "files"})
