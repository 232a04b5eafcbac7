"""What the words of a mount's options become."""

from barque.kernel import mount as km
from barque.runtime.mount_options import names, parse
from barque.runtime.root import components
from barque.runtime.settings import sysctl_path


def test_words_are_sorted_by_the_call_that_takes_them():
    options = parse(["rbind", "ro", "nosuid", "rslave", "rro", "mode=755", "size=1k", "tmpcopyup"])
    assert options.flags == km.MS_BIND | km.MS_REC | km.MS_RDONLY | km.MS_NOSUID
    assert options.propagation == (km.MS_SLAVE | km.MS_REC,)
    assert options.attr.set == km.MOUNT_ATTR_RDONLY | km.MOUNT_ATTR_NOSUID
    assert options.recursive_attr.set == km.MOUNT_ATTR_RDONLY
    assert options.data == "mode=755,size=1k"
    assert options.copy_up


def test_the_last_of_two_opposite_words_wins():
    assert not parse(["ro", "rw"]).flags & km.MS_RDONLY
    assert parse(["ro", "rw"]).attr.clear & km.MOUNT_ATTR_RDONLY
    assert parse(["rw", "ro"]).attr == km.MountAttr(set=km.MOUNT_ATTR_RDONLY)


def test_access_times_replace_one_another():
    noatime = parse(["bind", "noatime"]).attr
    assert noatime.set == km.MOUNT_ATTR_NOATIME
    assert noatime.clear == km.MOUNT_ATTR__ATIME
    assert parse(["bind", "relatime"]).attr == km.MountAttr(clear=km.MOUNT_ATTR__ATIME)


def test_every_known_word_is_understood():
    for word in names():
        assert parse([word]).data == ""


def test_components_never_leave_the_root():
    assert components("/../../a/./b//c/../d") == ["a", "b", "d"]
    assert components("/") == []


def test_the_first_separator_of_a_sysctl_decides():
    assert sysctl_path("net.ipv4.ip_forward") == "net/ipv4/ip_forward"
    assert sysctl_path("net/ipv4/conf/eth0.5/forwarding") == "net/ipv4/conf/eth0.5/forwarding"
    assert sysctl_path("net.ipv4.conf.eth0/5.forwarding") == "net/ipv4/conf/eth0.5/forwarding"
