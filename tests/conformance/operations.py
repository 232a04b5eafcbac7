"""Sequences of docker commands on containers, volumes, limits, health, restarts, logs and events.

A line is a docker command; `until TEXT = command` repeats one until it prints TEXT; what `quiet command` says is not
compared, and events before it are not told. {dir} is a folder of the engine's own, {began} and {now} are times.
"""

import re

from conformance.image_operations import ARCHIVES, COMMITS, LISTS, NAMES, REMOVAL

LIMIT_FILES = {
    "-m 64m": "memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes",
    "-m 64m --memory-swap 128m": "memory/memory.memsw.limit_in_bytes",
    "-m 64m --memory-swap -1": "memory/memory.memsw.limit_in_bytes",
    "-m 64m --memory-reservation 32m": "memory/memory.soft_limit_in_bytes",
    "-m 64m --oom-kill-disable": "memory/memory.oom_control",
    "--memory-swappiness 10": "memory/memory.swappiness",
    "--memory-swappiness 0": "memory/memory.swappiness",
    "--cpus 0.5": "cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us",
    "--cpu-shares 512": "cpu/cpu.shares",
    "--cpu-period 50000 --cpu-quota 25000": "cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us",
    "--cpuset-cpus 0": "cpuset/cpuset.cpus",
    "--cpuset-mems 0": "cpuset/cpuset.mems",
    "--pids-limit 50": "pids/pids.max",
    "--pids-limit -1": "pids/pids.max",
    "--device-cgroup-rule 'c 42:* rmw'": "devices/devices.list",
    "--device /dev/null:/dev/mine:r": "devices/devices.list",
    "--device-read-bps /dev/loop0:1mb --device-write-bps /dev/loop0:2mb": "blkio/blkio.throttle.read_bps_device blkio/blkio.throttle.write_bps_device",
    "--device-read-iops /dev/loop0:10 --device-write-iops /dev/loop0:20": "blkio/blkio.throttle.read_iops_device blkio/blkio.throttle.write_iops_device",
}
RUN_LIMITS = {
    f"limits {flags}": [f"run --rm {flags} busybox sh -c 'cd /sys/fs/cgroup; head -n 40 {files}'"]
    for flags, files in LIMIT_FILES.items()
}
UPDATES = {
    f"update {flags}": [
        "run -d --name u -m 64m --memory-swap 128m --pids-limit 100 busybox sleep 100",
        f"update {flags} u",
        f"exec u sh -c 'cd /sys/fs/cgroup; cat {files}'",
        "rm -f u",
    ]
    for flags, files in {
        "-m 96m": "memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes",
        "-m 256m --memory-swap 512m": "memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes",
        "--memory-reservation 16m": "memory/memory.soft_limit_in_bytes",
        "--cpus 1.5": "cpu/cpu.cfs_quota_us",
        "--cpu-shares 2048": "cpu/cpu.shares",
        "--cpuset-cpus 0": "cpuset/cpuset.cpus",
        "--cpuset-mems 0": "cpuset/cpuset.mems",
        "--cpu-period 50000 --cpu-quota 20000": "cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us",
        "--pids-limit 7": "pids/pids.max",
        "-m 256m": "memory/memory.limit_in_bytes",
        "-m 1m": "memory/memory.limit_in_bytes",
    }.items()
}
REFUSED_LIMITS = {
    f"refused {flags}": [f"create --name refused {flags} busybox", "rm -f refused"]
    for flags in (
        "-m 1m", "-m 64m --memory-swap 32m", "--memory-swap 64m", "--memory-reservation 1m",
        "-m 32m --memory-reservation 64m", "--memory-swappiness 101", "--cpus 1000", "--cpuset-cpus 99", "--cpuset-mems 99",
        "--cpuset-cpus a", "--cpu-rt-period 1000 --cpu-rt-runtime 2000", "--cpu-period 1", "--cpu-quota 1", "--blkio-weight 5",
        "--oom-score-adj 2000",
        "--ulimit nofile=20:10", "--device /dev/nosuch", "--cpus 1 --cpu-period 5000", "--restart on-failure:-1",
        "--restart always:3", "--restart sometimes", "--rm --restart always", "--log-driver nosuch",
        "--log-opt nosuch=1", "--log-driver syslog --log-opt syslog-facility=pub",
        "--log-driver gelf", "--tmpfs /t:colour=red", "--log-opt max-file=0 --log-opt max-size=1k", "--log-opt max-size=red",
    )
}  # fmt: skip
LIMITS = {
    **RUN_LIMITS, **UPDATES, **REFUSED_LIMITS,
    "limits ulimit": ["run --rm --ulimit nofile=100:200 --ulimit core=0 busybox sh -c 'ulimit -n; ulimit -Hn; ulimit -c'"],
    "limits sysctls": [
        "run --rm --sysctl net.core.somaxconn=77 --sysctl kernel.msgmax=4096 busybox cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax",
        "create --sysctl kernel.panic=1 busybox", "create --sysctl net.core.somaxconn busybox",
    ],
    "limits storage": ["create --storage-opt colour=red busybox"],
    "limits devices": [
        "create --name dv --device /dev/null:/dev/mine:zz busybox", "create --name dv --device-read-bps /dev/nosuch:1mb busybox", "start dv", "rm dv",
        "create --name dv --device-read-bps red busybox", "create --name dv --device-cgroup-rule 'x 1:2 r' busybox", "rm dv",
    ],
    "limits shm": ["run --rm --shm-size 8m busybox sh -c 'df -k /dev/shm | tail -n 1'"],
    "limits oom score": ["run --rm --oom-score-adj 500 busybox cat /proc/self/oom_score_adj"],
    "out of memory": [
        "run --name o -m 8m busybox sh -c 'x=$(yes | head -c 100000000)'",
        "inspect -f '{{.State.OOMKilled}} {{.State.ExitCode}} {{.State.Status}}' o",
        "rm o",
    ],
    "inspect of limits": [
        "create --name i -m 64m --cpus 0.5 --cpu-shares 3 --pids-limit 9 --ulimit nofile=1:2 --device /dev/null busybox",
        ("inspect -f '{{json .HostConfig.Memory}} {{json .HostConfig.NanoCpus}} {{json .HostConfig.PidsLimit}} "
        "{{json .HostConfig.MemorySwap}} {{json .HostConfig.Ulimits}} {{json .HostConfig.Devices}}' i"),
        "rm i",
    ],
}  # fmt: skip
VOLUMES = {
    "create, show and remove": [
        "volume create --label a=b one", "volume ls --format '{{.Driver}} {{.Name}} {{.Labels}} {{.Scope}}' -f name=one",
        "volume inspect -f '{{json .Labels}} {{json .Options}} {{.Scope}} {{.Driver}}' one", "volume rm one",
        "volume rm one", "volume rm -f one", "volume inspect one",
    ],
    "create twice": ["volume create twice", "volume create twice", "volume ls -q -f name=twice", "volume rm twice"],
    "bad names": ["volume create x", "volume create @x", "volume create 'a b'", "create -v 'a@b:/c' busybox"],
    "bad options": [
        "volume create -o colour=red bo", "volume create -o type=tmpfs bo", "volume create -o o=size=1m bo",
        "volume ls -q -f name=bo",
    ],
    "tmpfs volume": [
        "volume create -o type=tmpfs -o device=tmpfs -o o=size=4m,uid=33 tm",
        "run --rm -v tm:/m busybox sh -c 'df -k /m | tail -n 1; stat -c %u /m'", "volume rm tm",
    ],
    "a volume that cannot be mounted": [
        "volume create -o type=ext4 -o device=/dev/nosuch bad", "create --name bb -v bad:/m:nocopy busybox", "start bb",
        "rm bb", "volume rm bad",
    ],
    "volumes of servers": [
        "volume create -o type=nfs -o device=:/export -o o=addr=127.0.0.1,rw,soft nf", "create --name sv -v nf:/m:nocopy busybox", "start sv", "rm sv",
        "volume create -o type=nfs -o device=:/export -o o=addr=no.such.host.invalid nh", "create --name sv -v nh:/m:nocopy busybox", "rm sv",
        "volume create -o type=cifs -o device=//127.0.0.1/share -o o=username=u,password=secret ci",
        "create --name sv -v ci:/m:nocopy busybox", "start sv", "rm sv", "volume rm nf nh ci",
    ],
    "volumes of other types": [
        "volume create -o type=none -o device={dir} -o o=bind bi", "run --rm -v bi:/m busybox cat /m/hello", "volume rm bi",
        "volume create -o type=none -o device=/no/such -o o=bind bn", "create --name ot -v bn:/m:nocopy busybox", "start ot", "rm ot",
        "volume create -o type=nosuchfs -o device=any bx", "create --name ot -v bx:/m:nocopy busybox", "start ot", "rm ot", "volume rm bn bx",
    ],
    "copy up": [
        "run --rm -v cu:/etc busybox ls /etc", "run --rm -v cu:/x busybox stat -c '%u %a %n' /x /x/passwd",
        "run --rm -v cv:/etc:nocopy busybox ls /etc", "volume rm cu cv",
    ],
    "copy up keeps owner and mode": [
        "create --name cm busybox sh -c 'mkdir -p /d/s; chown 33:33 /d; chmod 2750 /d; echo x >/d/s/f; ln -s f /d/s/l'",
        "start -a cm", "commit cm cm:1", "run --rm -v cmv:/d cm:1 stat -c '%u %g %a %F' /d /d/s /d/s/f /d/s/l",
        "rm cm", "volume rm cmv", "rmi cm:1",
    ],
    "anonymous volumes go with their container": [
        "create --name an -v /a busybox", "inspect -f '{{len .Mounts}} {{(index .Mounts 0).Type}} {{(index .Mounts 0).Driver}}' an",
        "rm -v an", "volume ls -q -f dangling=true", "run --rm -v /b busybox true", "volume ls -q -f dangling=true",
        "create --name an -v /a busybox", "rm an", "volume ls -q -f dangling=true", "volume prune -f",
    ],
    "in use": [
        "create --name holds -v held:/h busybox", "volume rm held", "volume rm -f held", "rm holds", "volume rm held",
    ],
    "volumes from": [
        "create --name vf -v vfd:/d -v {dir}:/b busybox", "run --rm --volumes-from vf busybox sh -c 'echo 1 >/d/x; echo 2 >/b/y'",
        "run --rm --volumes-from vf:ro busybox sh -c 'cat /d/x /b/y; touch /d/z /b/z'",
        "create --volumes-from nobody busybox", "create --volumes-from vf:zz busybox", "create --volumes-from vf:nocopy busybox",
        "rm vf", "volume rm vfd",
    ],
    "mounts of inspect": [
        "create --name mi -v {dir}:/b:ro -v nm:/v -v /anon --tmpfs /t:size=1m busybox",
        "inspect -f '{{range .Mounts}}{{.Type}} {{.Destination}} {{.Mode}} {{.RW}} {{.Propagation}}|{{end}}' mi",
        "inspect -f '{{len .HostConfig.Binds}} {{json .HostConfig.Tmpfs}} {{json .Config.Volumes}}' mi",
        "rm -v mi", "volume rm nm",
    ],
    "mount flags": [
        "run --rm --mount type=bind,src={dir},dst=/m,readonly busybox touch /m/x",
        "run --rm --mount type=volume,src=mv,dst=/m,volume-label=k=v busybox touch /m/x",
        "volume inspect -f '{{json .Labels}}' mv", "volume rm mv",
        "run --rm --mount type=tmpfs,dst=/m,tmpfs-size=1m,tmpfs-mode=700 busybox sh -c 'grep \" /m \" /proc/mounts | cut -d\" \" -f1-4'",
        "create --mount type=bind,src=/no/such,dst=/m busybox", "create --mount type=bind,src=relative,dst=/m busybox",
        "create --mount type=volume,dst=/ busybox", "create --mount type=volume,dst=rel busybox",
        "create --mount type=tmpfs,src=x,dst=/m busybox", "create --mount type=what,dst=/m busybox",
    ],
    "bad binds": [
        "create -v /a:/ busybox", "create -v /a:b busybox", "create -v /a:/b:zz busybox", "create -v /a:/b:ro,rw busybox",
        "create -v /a:ro busybox", "create -v :/b busybox", "create -v aa:/b:rslave busybox",
        "create -v x1:/d -v x2:/d busybox", "create --tmpfs rel busybox",
        "volume rm -f x1 x2 aa",
    ],
    "tmpfs": [
        "run --rm --tmpfs /t:size=2m,mode=1770,exec busybox sh -c 'grep \" /t \" /proc/mounts | cut -d\" \" -f1-4; stat -c %a /t'",
        "run --rm --tmpfs /t busybox sh -c 'grep \" /t \" /proc/mounts | cut -d\" \" -f1-3; stat -c %a /t'",
    ],
    "a missing bind source": ["run --rm -v {dir}/new:/n busybox sh -c 'ls -d /n'", "run --rm -v {dir}:/d busybox stat -c '%F %a %u' /d/new"],
    "a file": ["run --rm -v {dir}:/d busybox sh -c 'echo in >/d/f'", "run --rm -v {dir}/f:/etc/f busybox cat /etc/f"],
    "prune with labels": [
        "volume create --label a=1 pa", "volume create --label a=2 pb", "volume prune -f --filter label=a=1",
        "volume ls -q -f name=pa -f name=pb", "volume prune -f --filter label!=a=2", "volume prune -f --filter colour=1",
        "volume rm pa", "volume rm pb",
    ],
    "bad filters": ["volume ls -f colour=red", "volume ls -f dangling=perhaps"],
    "a container's size and a copy into a volume": [
        "create --name cp -v cpd:/d busybox cat /d/hello", "cp {dir}/hello cp:/d/", "start -a cp", "cp cp:/d/hello {dir}/back", "rm cp",
        "volume rm cpd",
    ],
    "shared propagation": [
        "create --name sp -v {dir}:/m:rshared busybox", "inspect -f '{{(index .Mounts 0).Propagation}} {{(index .Mounts 0).Mode}}' sp", "rm sp",
    ],
}  # fmt: skip
_HEALTH = "'{{.State.Health.Status}}'"
HEALTH = {
    "healthy, then not": [
        "run -d --name h --health-cmd 'test ! -e /ill' --health-interval 100ms --health-retries 2 busybox sleep 100",
        f"until healthy = inspect -f {_HEALTH} h", "exec h touch /ill", f"until unhealthy = inspect -f {_HEALTH} h",
        "inspect -f '{{json .Config.Healthcheck}}' h", "stop -t 0 h", f"inspect -f {_HEALTH} h", "rm h",
    ],
    "exit codes and output": [
        "run -d --name h --health-cmd 'echo out; sleep 0.3; echo err >&2; exit 3' --health-interval 100ms --health-retries 100 busybox sleep 100",
        "until 3 = inspect -f '{{with .State.Health.Log}}{{(index . 0).ExitCode}}{{end}}' h",
        "inspect -f '{{(index .State.Health.Log 0).Output}}' h", f"inspect -f {_HEALTH} h", "rm -f h",
    ],
    "too slow": [
        "run -d --name h --health-cmd 'sleep 50' --health-interval 100ms --health-timeout 300ms --health-retries 1 busybox sleep 100",
        f"until unhealthy = inspect -f {_HEALTH} h",
        "inspect -f '{{(index .State.Health.Log 0).ExitCode}} {{(index .State.Health.Log 0).Output}}' h", "rm -f h",
    ],
    "a command that is not there": [
        "run --name hb busybox touch /changed", "commit -c 'HEALTHCHECK --interval=100ms --retries=1 CMD [\"/no/such\"]' hb hb:1",
        "run -d --name h hb:1 sleep 100", f"until unhealthy = inspect -f {_HEALTH} h",
        "inspect -f '{{(index .State.Health.Log 0).ExitCode}}' h", "rm -f h hb", "rmi hb:1",
    ],
    "none and inherited": [
        "run --name hb busybox touch /changed", "commit -c 'HEALTHCHECK --interval=9s --timeout=8s --retries=7 CMD true' hb hc:1",
        "create --name h1 hc:1", "create --name h2 --no-healthcheck hc:1", "create --name h3 --health-retries 2 hc:1",
        "inspect -f '{{json .Config.Healthcheck}}' h1", "inspect -f '{{json .Config.Healthcheck}}' h2",
        "inspect -f '{{json .Config.Healthcheck}}' h3", "rm h1 h2 h3 hb", "rmi hc:1",
    ],
    "refused": [
        "create --health-interval 1ns --health-cmd x busybox", "create --health-retries -1 --health-cmd x busybox",
        "create --health-timeout 10us --health-cmd x busybox",
    ],
    "filters": [
        "run -d --name h --health-cmd true --health-interval 100ms busybox sleep 100", "run -d --name p busybox sleep 100",
        f"until healthy = inspect -f {_HEALTH} h", "ps --filter health=healthy --format '{{.Names}}'",
        "ps --filter health=none --format '{{.Names}}'", "ps --filter health=odd --format '{{.Names}}'", "rm -f h p",
    ],
}  # fmt: skip
RESTARTS = {
    "on failure, so many times": [
        "run -d --name r --restart on-failure:2 busybox sh -c 'exit 3'",
        "until 2 exited = inspect -f '{{.RestartCount}} {{.State.Status}}' r", "inspect -f '{{.State.ExitCode}}' r", "rm r",
    ],
    "on failure, success": [
        "run -d --name r --restart on-failure busybox true", "until exited = inspect -f '{{.State.Status}}' r",
        "inspect -f '{{.RestartCount}} {{.State.ExitCode}}' r", "rm r",
    ],
    "always, until it is stopped": [
        "run -d --name r --restart always busybox sh -c 'sleep 0.2'", "until 1 = inspect -f '{{.RestartCount}}' r", "stop -t 0 r",
        "inspect -f '{{.State.Status}}' r", "rm r",
    ],
    "always, killed": [
        "run -d --name r --restart always busybox sleep 100", "kill r", "wait r", "inspect -f '{{.State.Status}} {{.RestartCount}}' r", "rm -f r",
    ],
    "update of the policy": [
        "run -d --name r busybox sleep 100", "update --restart unless-stopped r",
        "inspect -f '{{json .HostConfig.RestartPolicy}}' r", "update --restart nosuch r", "update --restart on-failure:x r", "rm -f r",
    ],
    "restart resets": [
        "run -d --name r busybox sh -c 'trap \"exit 5\" TERM; sleep 100 & wait'", "restart -t 1 r",
        "inspect -f '{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}' r", "rm -f r",
    ],
    "stop signals": [
        "run -d --name r --stop-signal USR1 busybox sh -c 'trap \"exit 7\" USR1; while :; do sleep 0.05; done'", "stop -t 5 r",
        "inspect -f '{{.State.ExitCode}}' r", "rm r", "run -d --name r --stop-timeout 0 busybox sleep 100", "stop r",
        "inspect -f '{{.State.ExitCode}}' r", "rm r", "create --stop-signal NOSUCH busybox",
    ],
    "init": ["run --rm --init busybox sh -c 'cat /proc/1/comm'"],
    "paused": [
        "run -d --name r busybox sleep 100", "pause r", "pause r", "stop -t 0 r", "inspect -f '{{.State.Status}} {{.State.Paused}}' r",
        "unpause r", "rm -f r",
    ],
    "states refuse": [
        "create --name r busybox sleep 100", "kill r", "pause r", "unpause r", "stop r", "exec r true", "top r", "start r", "start r",
        "rm r", "rm -f r", "rm r", "start r", "stop r", "kill r", "restart r",
    ],
}  # fmt: skip
LOGS = {
    "streams": [
        "run --name l busybox sh -c 'echo 1; sleep 0.1; echo 2 >&2; sleep 0.1; printf 3'", "logs l", "logs --tail 1 l",
        "logs --tail 2 l", "logs -n 0 l", "logs --tail x l", "logs -t l", "rm l",
    ],
    "terminal": ["run -t --name l busybox sh -c 'echo 1; echo 2 >&2'", "logs l", "rm l"],
    "long lines": ["run --name l busybox sh -c 'yes | head -c 100000 | tr -d \"\\n\" | md5sum; yes a | head -n 30000 | tr -d \"\\n\"'", "logs l", "logs --tail 1 l", "rm l"],
    "details": [
        "run --name l --label x=y -e A=b --log-opt labels=x --log-opt env=A --log-opt tag='{{.Name}}-{{.ImageName}}' busybox echo hi",
        "logs --details l", "inspect -f '{{json .HostConfig.LogConfig}}' l", "rm l",
    ],
    "regular expressions": [
        "run --name l --label xyz=1 --label other=2 -e ABC=3 --log-opt labels-regex=^x --log-opt env-regex=^A busybox echo hi",
        "logs --details l", "rm l",
    ],
    "rotation": [
        "run --name l --log-opt max-size=10k --log-opt max-file=3 busybox seq 1 2000", "logs --tail 3 l", "rm l",
    ],
    "local": ["run --name l --log-driver local busybox sh -c 'echo 1; echo 2 >&2'", "logs l", "inspect -f '{{.LogPath}}' l", "rm l"],
    "none": ["run --name l --log-driver none busybox echo 1", "logs l", "rm l"],
    "since and until": [
        "run --name l busybox echo 1", "logs --since {now} l", "logs --until {began} l", "logs --since {began} l", "logs --since 1h l",
        "logs --since perhaps l", "rm l",
    ],
    "follow": ["run -d --name l busybox sh -c 'for i in 1 2 3; do echo $i; sleep 0.1; done'", "logs -f l", "logs -f --tail 1 l", "rm l"],
    "of nothing": ["logs nobody", "create --name l busybox", "logs l", "rm l"],
    "a dead log server": ["run --log-driver syslog --log-opt syslog-address=tcp://127.0.0.1:1 --name l busybox true", "rm l"],
    "odd bytes": ["run --name l busybox printf 'a\\000b\\377c\\033[1m<&>\\n\\n'", "logs l", "rm l"],
}  # fmt: skip
_NAMES = "--format '{{.Names}}'"
_OPTIONS = "{{json .HostConfig.SecurityOpt}}"
CONTAINERS = {
    "ports as filters": [
        "create --name pp --expose 77 -p 18555:78/udp busybox sleep 100", f"ps -a -f expose=77 {_NAMES}", f"ps -a -f publish=18555/udp {_NAMES}",
        "start pp", f"ps -f expose=77 {_NAMES}", f"ps -f expose=70-78/udp {_NAMES}", f"ps -f expose=78 {_NAMES}", f"ps -f publish=77 {_NAMES}",
        f"ps -f publish=78/udp {_NAMES}", f"ps -f publish=18555/udp {_NAMES}", f"ps -f publish=18550-18560/udp {_NAMES}",
        f"ps -f publish=1 -f expose=77 {_NAMES}", "port pp", "port pp 78/udp", "port pp 78", "rm -f pp", f"ps -f publish=18555 {_NAMES}",
    ],
    "patterns as filters": [
        "create --name one busybox", "create --name two busybox", f"ps -a -f 'name=^/?t.o$' {_NAMES}", f"ps -a -f 'name=^(one|two)$' {_NAMES}",
        f"ps -a -f 'name=(' {_NAMES}", f"ps -a -f 'name=^[^t]' -f 'name=(' {_NAMES}", f"ps -a -f 'name=(?i)ONE' {_NAMES}", "rm one two",
        "volume create vone", "volume ls -q -f 'name=^v.*e$'", "volume ls -q -f 'name=^one'", "volume rm vone",
        "network ls -q -f 'name=^bridg'", "network ls -f 'name=t$' --format '{{.Name}}'", "network ls -f id=zz -q",
    ],
    "times as filters": [
        "container prune -f --filter until=x", "system prune -f --filter until=1x", "network prune -f --filter until=yesterday",
        "image prune -f --filter until=xyz", "container prune -f --filter until=2010-01-01", "network prune -f --filter until=876000h",
    ],
    "names": [
        "create --name one busybox", "create --name two busybox", "create --name one busybox", "rename one two", "rename one 'a b'", "rename one x",
        "rename one one", "rename one ''", "rename nobody one", "rename one three", f"ps -a {_NAMES}", "create --name x busybox", "create --name 'a/b' busybox",
        "rm three two",
    ],
    "links": [
        "run -d --name one busybox sleep 100", "create --name two --link one:uno busybox", "rm -l nobody", "rm -l two", "rm -l two/uno",
        "rm -l two/uno", "inspect -f '{{json .HostConfig.Links}}' two", "rm -f one two",
    ],
    "a volume without a slash": [
        "create --name one busybox", "commit -c 'VOLUME data' one rel:1", "run --rm rel:1 sh -c 'grep -c \" /data \" /proc/mounts'",
        "rmi rel:1", "rm one",
    ],
    "namespaces of the host": [
        line for flags in ("--privileged", "--pid host", "--ipc host", "--privileged --security-opt seccomp=unconfined",
                           "--ipc host --security-opt label=disable", "--uts host", "--network host")
        for line in (f"create --name one {flags} busybox", f"inspect -f '{_OPTIONS}' one", "rm one")
    ],
    "exec": [
        "run -d --name one -e A=b -w /tmp -u 33:33 busybox sleep 100", "exec one sh -c 'echo $A; pwd; id'", "exec -e A=c -w / -u root one sh -c 'echo $A; pwd; id'",
        "exec one sh -c 'exit 42'", "exec one sh -c 'kill -9 $$'", "exec -u nobody one id", "exec -u nosuch one id", "exec -u 5:nosuch one id",
        "exec one sh -c 'echo out; echo err >&2'", "exec -d one true", "exec -i one cat", "exec -t one tty", "exec --env-file /nosuch one true",
        "exec nobody true", "rm -f one",
    ],
    "cp of a container that does not run": [
        "run --name one --add-host far:192.0.2.7 busybox sh -c 'echo more >>/etc/hosts; echo 1 >/f; ln -s /f /l; ln -s /nosuch /b; mkdir -p /d/e; echo 2 >/d/e/g'",
        "cp one:/etc/hosts {dir}/hosts", "run --rm -v {dir}:/m busybox grep -c 'far\\|more' /m/hosts", "cp one:/l {dir}/link", "cp -L one:/l {dir}/file",
        "run --rm -v {dir}:/m busybox sh -c 'cat /m/file; readlink /m/link'", "cp one:/d/. {dir}/into", "cp one:/d/. {dir}","cp one:/d {dir}", "cp one:/d {dir}/hello",
        "run --rm -v {dir}:/m busybox sh -c 'cat /m/into/e/g /m/e/g /m/d/e/g; ls /m'", "cp one:/nosuch -", "cp one:/f /nosuch/x", "cp -L one:/b {dir}",
        "cp {dir}/hello one:/nosuch/x", "cp {dir}/hello one:/d", "cp {dir}/hello one:/d/new", "cp {dir}/d one:/d/", "start -a one", "cp one:/d/hello {dir}/again",
        "cp one:/x one:/y", "cp one {dir}", "cp {dir}/nosuch one:/", "rm one",
    ],
}  # fmt: skip
_EVENTS = "events --since {began} --until {now} --format '{{{{.Type}}}} {{{{.Action}}}} {{{{json .Actor.Attributes}}}}'"
EVENTS = {
    "a container's life": ["run --name e -l k=v busybox true", "rm e", _EVENTS],
    "with a volume": ["run --rm --name e -v ev:/v busybox true", "volume rm ev", _EVENTS],
    "killed": ["run -d --name e busybox sleep 100", "kill -s USR2 e", "kill e", "wait e", "rm e", _EVENTS],
    "stopped and started": ["run -d --name e busybox sleep 100", "stop -t 0 e", "start e", "restart -t 0 e", "rm -f e", _EVENTS],
    "paused": ["run -d --name e busybox sleep 100", "pause e", "unpause e", "rm -f e", _EVENTS],
    "renamed and updated": ["create --name e busybox", "rename e f", "update --cpu-shares 3 f", "rm f", _EVENTS],
    "exec": ["run -d --name e busybox sleep 100", "exec e sh -c 'exit 3'", "rm -f e", _EVENTS],
    "copied, exported, committed": [
        "create --name e busybox", "cp e:/etc/group {dir}/group", "cp {dir}/hello e:/", "commit -m m e e:1", "rm e", "rmi e:1", _EVENTS,
    ],
    "images": ["tag busybox t:1", "rmi t:1", _EVENTS],
    "networks": ["network create en", "network rm en", _EVENTS],
    "volumes": ["volume create en", "volume rm en", "volume prune -f", _EVENTS],
    "out of memory": ["run --name e -m 8m busybox sh -c 'x=$(yes | head -c 100000000)'", "rm e", _EVENTS],
    "health": [
        "run -d --name e --health-cmd true --health-interval 100ms busybox sleep 100",
        f"until healthy = inspect -f {_HEALTH} e", "rm -f e", _EVENTS + " --filter event=health_status",
    ],
    "filters": [
        "run --name e busybox true", "rm e", _EVENTS + " --filter container=e --filter event=die", _EVENTS + " --filter type=network",
        _EVENTS + " --filter image=busybox --filter event=start", _EVENTS + " --filter label=none",
    ],
    "top": ["run -d --name e busybox sleep 100", "top e -eo pid,comm", "rm -f e", _EVENTS],
    "prune": ["quiet image prune -f", "create --name e -l mine busybox", "container prune -f --filter label=mine", "network prune -f", "image prune -f", _EVENTS],
    "start that fails": ["run --name e busybox /no/such", "rm e", _EVENTS],
}  # fmt: skip


def _longer(lines, letters):
    """Write names of one letter twice: engines demand two."""
    for letter in letters:
        lines = [re.sub(rf"(?<=[ =]){letter}(?=$|[ :])", letter * 2, line) for line in lines]
    return lines


_LETTERS = {"limits": "oui", "health": "hp", "restarts": "r", "logs": "l", "events": "ef"}
SEQUENCES = {
    f"{group}: {name}": _longer(lines, _LETTERS.get(group, ""))
    for group, found in {
        "containers": CONTAINERS, "volumes": VOLUMES, "limits": LIMITS, "health": HEALTH, "restarts": RESTARTS, "logs": LOGS, "events": EVENTS,
        "commits": COMMITS, "image names": NAMES, "image lists": LISTS, "removal of images": REMOVAL, "archives": ARCHIVES,
    }.items()
    for name, lines in found.items()
}  # fmt: skip
