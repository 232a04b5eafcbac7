"""What is said of a step that was not in the cache."""

from hypothesis import given, strategies as st

from barque.builder.explain import Run, explain, nearest, reasons
from barque.builder.keys import key_of


def said(now, before):
    return [reason.text for reason in explain(now, before)]


def test_a_first_run_is_told_as_one():
    assert said({"root": "a"}, None) == ["this step has not been run before"]


def test_the_file_that_changed_is_named():
    before = {"root": "r", "detail": {"d": "0", "d/a": "1", "d/b": "2"}, "actions": [["copy", {"taken": {"d": "0"}}]]}
    now = {"root": "r", "detail": {"d": "0", "d/a": "x", "d/c": "3"}, "actions": [["copy", {"taken": {"d": "1"}}]]}
    assert said(now, before) == ["file d/a changed", "file d/c is new", "file d/b is gone"]


def test_the_variable_that_changed_is_named_and_its_value_is_not():
    found = said({"root": "r", "env": ["A=secret", "B=1"]}, {"root": "r", "env": ["A=old", "C=1"]})
    assert found == ["the variable or argument A changed", "the variable or argument B is new", "the variable or argument C is gone"]
    assert "secret" not in " ".join(found)


def test_what_lies_below_and_settings_are_told():
    assert said({"root": "a", "user": "u"}, {"root": "b", "user": "v"}) == [
        "a step before it gave other files", "the user changed"
    ]  # fmt: skip
    one = {"root": "r", "actions": [["copy", {"owner": "a"}]]}
    assert said(one, {"root": "r", "actions": [["copy", {"owner": "b"}]]}) == ["--chown changed"]


def test_many_differences_are_counted():
    now = {"detail": {f"f{i}": "1" for i in range(20)}}
    assert said(now, {"detail": {}})[-1] == "15 more files differ"


def test_the_same_facts_mean_that_the_result_was_removed():
    assert "removed from the cache" in said({"root": "r"}, {"root": "r"})[0]


@given(st.dictionaries(st.text(max_size=4), st.text(max_size=4)))
def test_details_do_not_tell_steps_apart(detail):
    assert key_of({"kind": "files", "detail": detail}) == key_of({"kind": "files"})


def test_the_nearest_run_is_the_one_that_differs_least():
    runs = [Run("[2/3] RUN a", {"root": "r", "env": ["X=1"]}, 1), Run("[2/4] RUN a", {"root": "s", "env": ["X=2", "Y=1"]}, 2),
            Run("[3/3] RUN b", {"root": "r"}, 3)]  # fmt: skip
    now = {"root": "r", "env": ["X=3"]}
    assert nearest("[2/5] RUN a", now, runs) == runs[0]
    assert nearest("[2/5] RUN c", now, runs) == runs[2]
    assert nearest("[2/5] RUN c", {"root": "t"}, runs) is None
    assert [r.text for r in reasons("[2/5] RUN c", now, runs[2])] == ["this instruction has not been run; the last one at its place was RUN b"]


def test_mounts_are_told_by_their_targets():
    now = {"mounts": [{"target": "/a", "content": "1"}, {"target": "/b", "size": 1}, {"target": "/c"}]}
    before = {"mounts": [{"target": "/a", "content": "0"}, {"target": "/b", "size": 2}, {"target": "/d"}]}
    assert said(now, before) == ["the files mounted at /a changed", "the options of the mount at /b changed",
                                 "the mount at /c is new", "the mount at /d is gone"]  # fmt: skip


def test_files_that_were_not_looked_at_anew_did_not_change():
    """The digest of a layer's part is kept: then nothing is told of its single files."""
    taken = [["copy", {"taken": {"side": "1"}}]]
    assert said({"root": "a", "actions": taken, "detail": {}}, {"root": "b", "actions": taken, "detail": {"side": "1"}}) == [
        "a step before it gave other files"
    ]
