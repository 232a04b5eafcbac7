"""What a container is asked about its own confinement, to be compared with other engines' containers."""

import re

PROBE = r"""
echo == status; grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Sig(Ign|Blk)|Umask|Cpus_allowed_list|Mems_allowed_list|Speculation)' /proc/self/status
echo == mounts; cat /proc/self/mountinfo
echo == devices; stat -c '%n %F %a %u:%g %t:%T' /dev /dev/* /dev/pts/ptmx
echo == descriptors; for fd in 0 1 2 3 4 5 6 7 8 9 10 11 12; do [ -e /proc/self/fd/$fd ] && echo $fd $(stat -L -c %F /proc/self/fd/$fd); done
echo == groups; cat /proc/self/cgroup; ls /sys/fs/cgroup
echo == environment; env
echo == limits; cat /proc/self/limits
echo == score; cat /proc/self/oom_score_adj
echo == umask; umask
echo == parameters; for f in net/ipv4/ip_unprivileged_port_start net/ipv4/ping_group_range net/ipv6/conf/eth0/disable_ipv6 net/core/somaxconn kernel/hostname kernel/domainname kernel/shmmax kernel/msgmax fs/mqueue/msg_max; do echo $f $(cat /proc/sys/$f 2>&1); done
echo == masked; for p in /proc/asound /proc/acpi /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/timer_stats /proc/sched_debug /proc/scsi /sys/firmware /sys/devices/virtual/powercap; do [ -e $p ] && stat -c '%n %F %t:%T' $p; [ -d $p ] && ls $p | wc -l; done
echo == readonly; for p in /proc/bus/x /proc/fs/x /proc/irq/x /proc/sys/kernel/hostname /proc/sysrq-trigger; do (true >>$p) 2>&1; done
echo == process; pwd; id; hostname; cat /proc/self/loginuid /proc/self/sessionid /proc/self/personality /proc/self/setgroups /proc/self/uid_map /proc/self/coredump_filter 2>&1
echo == first; tr '\0' ' ' </proc/1/cmdline; readlink /proc/1/cwd; readlink /proc/1/root; awk '$6 ~ /^\// {print $6}' /proc/1/maps | sort -u
"""


def without_library_signals(line: str) -> str:
    """Return a line of a process's status without the two signals that the C library keeps for itself."""
    return re.sub(r"(?<=SigIgn:\t)[0-9a-f]{16}", lambda found: f"{int(found[0], 16) & ~(3 << 31):016x}", line)


def sections(text: str) -> dict[str, list[str]]:
    """Return the lines of each section."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("== "):
            lines = found.setdefault(line[3:], [])
        else:
            lines.append(line.rstrip())
    return found
