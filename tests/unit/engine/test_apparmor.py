"""Which AppArmor profile a container gets, by a kernel's list of those that are loaded."""

import pytest

from barque.base.errors import InvalidInputError
from barque.engine import apparmor


@pytest.fixture
def loaded(tmp_path):
    path = tmp_path / "profiles"
    path.write_text("docker-default (enforce)\n/usr/bin/man (enforce)\nmine with a blank (complain)\n")
    return str(path)


def test_a_named_profile_is_taken(loaded):
    host = {"SecurityOpt": ["no-new-privileges", "apparmor=mine with a blank"]}
    apparmor.check(host, loaded=loaded)
    assert apparmor.profile_of(host, loaded=loaded) == "mine with a blank"


def test_the_default_profile_is_taken_where_it_is_loaded(loaded, tmp_path):
    assert apparmor.profile_of({}, loaded=loaded) == "docker-default"
    (tmp_path / "others").write_text("other (enforce)\n")
    assert apparmor.profile_of({}, loaded=str(tmp_path / "others")) == ""
    assert apparmor.profile_of({}, loaded=str(tmp_path / "missing")) == ""


@pytest.mark.parametrize("host", [{"SecurityOpt": ["apparmor=unconfined"]}, {"Privileged": True}])
def test_who_is_not_to_be_confined_is_not(loaded, host):
    assert apparmor.profile_of(host, loaded=loaded) == ""
    apparmor.check(host, loaded=loaded)


def test_a_profile_that_is_not_there_is_refused(loaded, tmp_path):
    host = {"SecurityOpt": ["apparmor=nosuch"]}
    with pytest.raises(InvalidInputError, match="nosuch is not loaded"):
        apparmor.check(host, loaded=loaded)
    with pytest.raises(InvalidInputError, match="AppArmor is not enabled"):
        apparmor.check(host, loaded=str(tmp_path / "missing"))
