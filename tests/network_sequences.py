"""Sequences of docker commands on networks, and how to run one against an engine.

N1… and C1… stand for names of networks and containers of the sequence's own; after it both are removed.
Besides docker's verbs there are

    ping C1 TARGET      "yes" or "no"
    lookup C1 NAME      the addresses that the name means in C1, or "none"
    fetch C1 URL        what the server there says, or "no"
    host COMMAND        run in the network namespace of the engine itself
    serve C1 PORT TEXT  a server in C1 that answers every request with the text

`DIFFERS` holds what differs, by sequence and line (from 1): what the old Docker says, what we say, and why.
Texts are compared after ids, addresses that were chosen by the engine, and the like are replaced.
"""

import re
import shlex
import subprocess
import time
from collections.abc import Callable
from typing import NamedTuple

SLEEP = "busybox sleep 1000"

SEQUENCES: dict[str, str] = {
    # Making, looking, removing.
    "create and look": """
        network create N1
        network ls --filter name=N1 --format '{{.Name}} {{.Driver}} {{.Scope}}'
        network inspect -f '{{.Name}} {{.Driver}} {{.Scope}} {{.Internal}} {{.Attachable}} {{.EnableIPv6}} {{.Ingress}} {{.ConfigOnly}}' N1
        network inspect -f '{{json .Options}} {{json .Labels}} {{json .Containers}} {{.IPAM.Driver}} {{len .IPAM.Config}}' N1
        network rm N1
        network ls --filter name=N1 -q
    """,
    "create twice": """
        network create N1
        network create N1
        network rm N1 N1
    """,
    "create with labels and options": """
        network create --label a=b --label c --opt com.docker.network.bridge.enable_icc=false -o com.docker.network.driver.mtu=1400 N1
        network inspect -f '{{json .Labels}} {{json .Options}}' N1
        network ls --filter label=a --format {{.Name}}
        network ls --filter label=a=b --format {{.Name}}
        network ls --filter label=a=x --filter name=N1 -q
    """,
    "create internal and attachable": """
        network create --internal --attachable N1
        network inspect -f '{{.Internal}} {{.Attachable}}' N1
    """,
    "subnet, range and gateway": """
        network create --subnet 10.101.0.0/16 --ip-range 10.101.7.0/24 --gateway 10.101.0.9 --aux-address a=10.101.7.0 --aux-address b=10.101.7.1 N1
        network inspect -f '{{json .IPAM.Config}}' N1
        run -d --name C1 --network N1 busybox sleep 1000
        inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.Gateway}} {{.IPPrefixLen}} {{.MacAddress}}{{end}}' C1
        exec C1 ip route
        run --rm --network N1 busybox ip -o -4 addr show eth0
    """,
    "addresses are given in order and again": """
        network create --subnet 10.102.0.0/24 N1
        run -d --name C1 --network N1 busybox sleep 1000
        run -d --name C2 --network N1 busybox sleep 1000
        inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' C1 C2
        network inspect -f '{{len .Containers}}' N1
        rm -f C1
        inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' C2
    """,
    "two subnets that overlap": """
        network create --subnet 10.103.0.0/16 N1
        network create --subnet 10.103.4.0/24 N2
        network create --subnet 10.102.0.0/15 N2
        network rm N1
        network create --subnet 10.103.4.0/24 N2
    """,
    "wrong subnets": """
        network create --subnet nonsense N1
        network create --subnet 10.104.0.0/33 N1
        network create --subnet 10.104.0.0/24 --gateway 10.105.0.1 N1
        network create --subnet 10.104.0.0/24 --ip-range 10.105.0.0/24 N1
        network create --subnet 10.104.0.0/24 --subnet 10.104.0.0/24 N1
        network ls -q --filter name=N1
    """,
    "too small a subnet": """
        network create --subnet 10.106.0.0/30 N1
        run -d --name C1 --network N1 busybox sleep 1000
        run --name C2 --network N1 busybox true
        rm -f C1
        run --rm --network N1 busybox ip -o -4 addr show eth0
    """,
    "six": """
        network create --ipv6 --subnet fdaa:1::/64 --subnet 10.107.0.0/24 N1
        run -d --name C1 --network N1 busybox sleep 1000
        run -d --name C2 --network N1 busybox sleep 1000
        inspect -f '{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}} {{.GlobalIPv6PrefixLen}} {{.IPv6Gateway}} {{.IPAddress}}{{end}}' C1
        ping C1 fdaa:1::3
        ping C2 10.107.0.2
        network inspect -f '{{.EnableIPv6}} {{len .Containers}}' N1
    """,
    "predefined networks": """
        network rm bridge
        network rm host none
        network create host
        network create bridge
        network create -d host N1
        network create -d null N1
        network ls --filter type=builtin --format {{.Name}}
        network inspect -f '{{.Name}} {{.Driver}} {{.Scope}} {{.Internal}}' bridge host none
    """,
    "unknown drivers": """
        network create -d nonsense N1
        network create -d macvlan -o macvlan_mode=nonsense N1
        network ls -q --filter name=N1
    """,
    "no names": """
        network create ''
        network inspect N1
        network rm N1
        network connect N1 C1
        network disconnect N1 C1
    """,
    "filters of ls": """
        network create --label x=1 N1
        network create N2
        network ls --filter driver=bridge --filter name=N1 --format {{.Name}}
        network ls --filter driver=nonsense -q
        network ls --filter scope=local --filter name=N2 --format {{.Name}}
        network ls --filter type=custom --filter name=N --format {{.Name}}
        network ls --filter dangling=true --filter name=N1 --format {{.Name}}
        network ls --filter dangling=false --filter name=N1 --format {{.Name}}
        network ls --filter nonsense=1
        network ls --filter type=nonsense
    """,
    "by the beginning of its id": """
        network create N1
        host sh -c 'docker network inspect -f {{.Name}} $(docker network ls -q --filter name=N1)'
        host sh -c 'docker network rm $(docker network ls -q --no-trunc --filter name=N1) | wc -c'
        network ls -q --filter name=N1
    """,
    "names with slashes": """
        network create N1/a
        network inspect -f {{.Name}} N1/a
        run -d --name C1 busybox sleep 1000
        network connect N1/a C1
        lookup C1 C1.N1/a
        network disconnect N1/a C1
        network rm N1/a
        network rm N1/a
    """,
    "removal while in use": """
        network create N1
        run -d --name C1 --network N1 busybox sleep 1000
        network rm N1
        network rm -f N1
        stop -t 0 C1
        network rm N1
        start C1
        network rm -f N1
    """,
    "a network that is gone": """
        network create N1
        create --name C1 --network N1 busybox true
        network rm N1
        start C1
        run --name C2 --network N1 busybox true
    """,
    "prune": """
        network create --label prune=me N1
        network create N2
        network prune -f --filter label=prune=me
        network ls -q --filter name=N1
        network ls --filter name=N2 --format {{.Name}}
        network prune -f --filter label=prune=nobody
        network prune -f --filter nonsense=1
    """,
    "prune leaves what is used": """
        network create --label prune=used N1
        run -d --name C1 --network N1 busybox sleep 1000
        network prune -f --filter label=prune=used
        rm -f C1
        network prune -f --filter label=prune=used
    """,
    "configuration only": """
        network create --config-only --subnet 10.108.0.0/24 --gateway 10.108.0.7 N1
        network create --config-from N1 N2
        network inspect -f '{{.ConfigOnly}} {{.ConfigFrom.Network}} {{json .IPAM.Config}}' N1
        network inspect -f '{{.ConfigOnly}} {{.ConfigFrom.Network}} {{json .IPAM.Config}}' N2
        network rm N1
        run --rm --network N1 busybox true
        network create --config-from N3 N4
        network rm N2
        network rm N1
    """,
    # Names.
    "names": """
        network create N1
        run -d --name C1 --network N1 busybox sleep 1000
        run -d --name C2 --network N1 --network-alias web --network-alias www busybox sleep 1000
        ping C1 C2
        ping C1 web
        ping C2 C1
        lookup C1 C2.N1
        lookup C1 www
        lookup C1 nonsense
        exec C1 sh -c 'nslookup $(hostname) | grep -c Address'
        inspect -f '{{range .NetworkSettings.Networks}}{{len .Aliases}}{{end}}' C2
    """,
    "one alias for many": """
        network create --subnet 10.109.0.0/24 N1
        run -d --name C1 --network N1 --network-alias web busybox sleep 1000
        run -d --name C2 --network N1 --network-alias web busybox sleep 1000
        run -d --name C3 --network N1 --network-alias web busybox sleep 1000
        lookup C1 web
        stop -t 0 C2
        lookup C1 web
        start C2
        lookup C1 web
        rm -f C3
        lookup C1 web
    """,
    "names are not known elsewhere": """
        network create N1
        network create N2
        run -d --name C1 --network N1 --network-alias web busybox sleep 1000
        run -d --name C2 --network N2 busybox sleep 1000
        lookup C2 C1
        lookup C2 web
        network connect N2 C1
        lookup C2 C1
        lookup C2 web
        ping C2 C1
        network disconnect N2 C1
        lookup C2 C1
    """,
    "one name in two networks": """
        network create --subnet 10.141.0.0/24 N1
        network create --subnet 10.142.0.0/24 N2
        run -d --name C1 --network N1 --network-alias db busybox sleep 1000
        run -d --name C2 --network N2 --network-alias db busybox sleep 1000
        run -d --name C3 --network N1 busybox sleep 1000
        network connect N2 C3
        lookup C3 db
        lookup C3 db.N2
        lookup C3 db.N1
    """,
    "reverse names": """
        network create --subnet 10.110.0.0/24 N1
        run -d --name C1 --network N1 busybox sleep 1000
        exec C1 sh -c 'nslookup 10.110.0.2 127.0.0.11 | grep name'
    """,
    "renamed": """
        network create N1
        run -d --name C1 --network N1 busybox sleep 1000
        rename C1 C2
        ping C2 C2
        lookup C2 C1
        network inspect -f '{{range .Containers}}{{.Name}}{{end}}' N1
    """,
    "links": """
        network create N1
        run -d --name C1 --network N1 busybox sleep 1000
        run -d --name C2 --network N1 --link C1:database busybox sleep 1000
        ping C2 database
        lookup C1 database
    """,
    "links of the default bridge": """
        run -d --name C1 -e SECRET=1 --expose 5432 busybox sleep 1000
        run --rm --link C1:db busybox sh -c 'grep -cw db /etc/hosts; env | grep ^DB_ENV; env | grep -c ^DB_PORT'
        run -d --name C2 --link C1:db busybox sleep 1000
        inspect -f '{{json .HostConfig.Links}}' C2
        ping C2 db
        lookup C2 C1
    """,
    "aliases on the default bridge": """
        run --rm --network-alias x busybox true
        create --name C1 --network bridge busybox true
        network connect --alias x bridge C1
    """,
    "resolv.conf": """
        network create N1
        run --rm --network N1 busybox sh -c "grep -v '^#' /etc/resolv.conf | grep . | sort"
        run --rm --network N1 --dns 10.9.9.9 --dns-search a.example --dns-option ndots:3 busybox sh -c "grep -v '^#' /etc/resolv.conf | grep . | sort"
        run --rm --dns 10.9.9.9 --dns-search a.example --dns-option ndots:3 busybox sh -c "grep -v '^#' /etc/resolv.conf | grep . | sort"
        run --rm --network N1 --dns-search . busybox sh -c "grep -v '^#' /etc/resolv.conf | grep . | sort"
        run --rm --network none busybox sh -c "grep -c . /etc/resolv.conf"
    """,
    "hosts": """
        network create --subnet 10.111.0.0/24 N1
        run --rm --name C1 --hostname box --domainname example.org --network N1 --add-host a:10.1.1.1 --add-host b:fd00::1 busybox sh -c "grep -v ip6 /etc/hosts"
        run --rm --add-host up:host-gateway busybox sh -c "grep up /etc/hosts"
        run --rm --network none busybox sh -c "grep -v ip6 /etc/hosts"
        run --rm --network N1 --ip 10.111.0.77 --hostname h busybox sh -c "hostname -i; grep h$ /etc/hosts"
    """,
    "foreign names": """
        network create N1
        host sh -c 'echo asking'
        run --rm --network N1 --dns 127.9.9.9 busybox sh -c 'nslookup nonsense.example >/dev/null 2>&1 || echo none'
    """,
    # Connecting and disconnecting.
    "connect and disconnect": """
        network create --subnet 10.112.0.0/24 N1
        network create --subnet 10.113.0.0/24 N2
        run -d --name C1 --network N1 busybox sleep 1000
        network connect N2 C1
        exec C1 ip -o -4 addr show eth1
        inspect -f '{{range $n, $v := .NetworkSettings.Networks}}{{$n}}={{$v.IPAddress}};{{end}}' C1
        exec C1 ip route
        network disconnect N1 C1
        exec C1 ip -o -4 addr
        exec C1 ip route
        inspect -f '{{range $n, $v := .NetworkSettings.Networks}}{{$n}}={{$v.IPAddress}};{{end}}' C1
        network inspect -f '{{len .Containers}}' N1
        network disconnect N1 C1
    """,
    "connect twice": """
        network create N1
        run -d --name C1 --network N1 busybox sleep 1000
        network connect N1 C1
        network disconnect N1 C1
        network connect N1 C1
        ping C1 C1
    """,
    "connect with an address and names": """
        network create --subnet 10.114.0.0/24 N1
        run -d --name C1 busybox sleep 1000
        run -d --name C2 --network N1 busybox sleep 1000
        network connect --ip 10.114.0.50 --alias db --alias database N1 C1
        lookup C2 database
        inspect -f '{{with index .NetworkSettings.Networks "N1"}}{{.IPAddress}} {{json .IPAMConfig}}{{end}}' C1
        restart -t 0 C1
        lookup C2 db
    """,
    "connect one that does not run": """
        network create --subnet 10.115.0.0/24 N1
        create --name C1 busybox sleep 1000
        network connect --ip 10.115.0.9 N1 C1
        inspect -f '{{range $n, $v := .NetworkSettings.Networks}}{{$n}}={{$v.IPAddress}};{{end}}' C1
        start C1
        inspect -f '{{with index .NetworkSettings.Networks "N1"}}{{.IPAddress}}{{end}}' C1
        stop -t 0 C1
        network disconnect N1 C1
        start C1
        inspect -f '{{len .NetworkSettings.Networks}}' C1
    """,
    "connect with links": """
        network create N1
        run -d --name C1 --network N1 busybox sleep 1000
        run -d --name C2 busybox sleep 1000
        network connect --link C1:db N1 C2
        ping C2 db
        lookup C1 db
    """,
    "connect to host and none": """
        run -d --name C1 busybox sleep 1000
        network connect host C1
        network connect none C1
        network disconnect host C1
        network disconnect none C1
        run -d --name C2 --network host busybox sleep 1000
        network create N1
        network connect N1 C2
        network disconnect host C2
        run -d --name C3 --network none busybox sleep 1000
        network connect N1 C3
        network disconnect none C3
        network connect N1 C3
        ping C3 C3
    """,
    "connect what is not there": """
        network create N1
        network connect N1 C1
        network disconnect N1 C1
        run -d --name C1 busybox sleep 1000
        network connect N9 C1
        network disconnect N1 C1
        network disconnect -f N1 C9
    """,
    "disconnect the last one": """
        network create N1
        run -d --name C1 --network N1 busybox sleep 1000
        network disconnect N1 C1
        exec C1 ip -o -4 addr
        inspect -f '{{len .NetworkSettings.Networks}}' C1
        restart -t 0 C1
        exec C1 ip -o -4 addr
        network connect N1 C1
        ping C1 C1
    """,
    "several networks survive a restart": """
        network create --subnet 10.116.0.0/24 N1
        network create --subnet 10.117.0.0/24 N2
        run -d --name C1 --network N1 --ip 10.116.0.9 busybox sleep 1000
        network connect --ip 10.117.0.9 N2 C1
        restart -t 0 C1
        exec C1 sh -c 'ip -o -4 addr | grep -v " lo " | sed "s/.*inet //; s/ .*//" | sort'
    """,
    "shared namespaces": """
        network create N1
        run -d --name C1 --network N1 busybox sleep 1000
        run --rm --network container:C1 busybox ping -c1 -W1 -q C1
        run --rm --network container:C1 busybox hostname
        run -d --name C2 --network container:C1 busybox sleep 1000
        network connect N1 C2
        inspect -f '{{len .NetworkSettings.Networks}} {{.NetworkSettings.IPAddress}}' C2
        run --rm --network container:C9 busybox true
        run --rm --network container:C1 -p 80:80 busybox true
        run --rm --network container:C1 --hostname x busybox true
        run --rm --network container:C1 --dns 10.1.1.1 busybox true
        run --rm --network container:C1 --add-host a:10.1.1.1 busybox true
        run --rm --network container:C1 --link C1:x busybox true
        run --rm --network container:C1 --mac-address 02:00:00:00:00:01 busybox true
        stop -t 0 C1
        run --rm --network container:C1 busybox true
    """,
    # Addresses by hand.
    "addresses by hand": """
        network create --subnet 10.118.0.0/24 N1
        run -d --name C1 --network N1 --ip 10.118.0.77 busybox sleep 1000
        exec C1 ip -o -4 addr show eth0
        run --rm --network N1 --ip 10.118.0.77 busybox true
        run --rm --network N1 --ip 10.119.0.77 busybox true
        run --rm --ip 10.118.0.77 busybox true
        stop -t 0 C1
        run --rm --network N1 --ip 10.118.0.77 busybox true
        start C1
        exec C1 ip -o -4 addr show eth0
    """,
    "addresses by hand in IPv6": """
        network create --ipv6 --subnet fdab:1::/64 N1
        run -d --name C1 --network N1 --ip6 fdab:1::77 busybox sleep 1000
        exec C1 sh -c "ip -6 -o addr show eth0 scope global"
        run --rm --network N1 --ip6 fdab:1::77 busybox true
        run --rm --network N1 --ip6 fdab:2::77 busybox true
        run --rm --network N1 --ip6 fdab:1::1 busybox true
        run --rm --network N1 busybox ip -6 -o addr show eth0 scope global
        exec C1 ip -6 route
    """,
    "an address by hand without a subnet": """
        network create N1
        run --rm --network N1 --ip 172.30.99.99 busybox true
    """,
    "reserved addresses by hand": """
        network create --subnet 10.120.0.0/24 --gateway 10.120.0.5 --aux-address x=10.120.0.6 N1
        run --rm --network N1 --ip 10.120.0.5 busybox true
        run --rm --network N1 --ip 10.120.0.6 busybox true
        run --rm --network N1 --ip 10.120.0.0 busybox true
        run --rm --network N1 --ip 10.120.0.255 busybox true
        run --rm --network N1 busybox ip -o -4 addr show eth0
    """,
    "link-local addresses": """
        network create --subnet 10.121.0.0/24 N1
        run --rm --network N1 --link-local-ip 169.254.7.7 busybox sh -c 'ip -o -4 addr show eth0 | wc -l'
    """,
    "hardware addresses": """
        run --rm --mac-address nonsense busybox true
        run --rm --network N9 --mac-address nonsense busybox true
        run -d --name C1 --mac-address 02:42:ac:11:00:99 busybox sleep 1000
    """,
    # Isolation.
    "networks do not reach each other": """
        network create --subnet 10.122.0.0/24 N1
        network create --subnet 10.123.0.0/24 N2
        run -d --name C1 --network N1 busybox sleep 1000
        run -d --name C2 --network N2 busybox sleep 1000
        ping C1 10.123.0.2
        ping C2 10.122.0.2
        ping C1 10.122.0.1
        ping C1 10.123.0.1
        network connect N1 C2
        ping C2 10.122.0.2
        ping C1 C2
    """,
    "internal networks": """
        network create --internal --subnet 10.124.0.0/24 N1
        run -d --name C1 --network N1 busybox sleep 1000
        run -d --name C2 --network N1 busybox sleep 1000
        ping C1 C2
        exec C1 sh -c 'ip route | grep -c default'
        ping C1 10.99.99.99
        host sh -c 'ping -c1 -W1 10.124.0.2 >/dev/null && echo yes || echo no'
    """,
    "no talk inside": """
        network create -o com.docker.network.bridge.enable_icc=false --subnet 10.125.0.0/24 N1
        run -d --name C1 --network N1 busybox sleep 1000
        run -d --name C2 --network N1 busybox sleep 1000
        lookup C1 C2
        ping C1 C2
        ping C1 10.125.0.1
    """,
    "the host reaches containers": """
        network create --subnet 10.126.0.0/24 N1
        run -d --name C1 --network N1 busybox sleep 1000
        host sh -c 'ping -c1 -W1 10.126.0.2 >/dev/null && echo yes || echo no'
        host sh -c "ip -o -4 addr | grep -c 10.126.0.1/24"
        network rm N1
        rm -f C1
        network rm N1
        host sh -c "ip -o -4 addr | grep -c 10.126.0.1/24"
    """,
    "a bridge of one's own name": """
        network create -o com.docker.network.bridge.name=br-named -o com.docker.network.driver.mtu=1400 --subnet 10.127.0.0/24 N1
        host sh -c 'ip -o link show br-named | wc -l'
        run --rm --network N1 busybox cat /sys/class/net/eth0/mtu
        network create -o com.docker.network.bridge.name=br-named N2
        network rm N1
        host sh -c 'ip -o link show br-named 2>/dev/null | wc -l'
    """,
    # Ports.
    "published ports": """
        network create N1
        run -d --name C1 --network N1 -p 18001:80 -p 127.0.0.1:18002:81/udp --expose 82 busybox sleep 1000
        port C1
        port C1 80
        port C1 81/udp
        port C1 82
        ps --filter name=C1 --format {{.Ports}}
        serve C1 80 hello
        host busybox wget -qO- -T 2 http://127.0.0.1:18001/
        stop -t 0 C1
        port C1
    """,
    "a port that is taken": """
        run -d --name C1 -p 18003:80 busybox sleep 1000
        run -d --name C2 -p 18003:80 busybox sleep 1000
        inspect -f '{{.State.Status}}' C2
        rm -f C1
        start C2
        port C2
    """,
    "ports from the next network": """
        network create --subnet 10.130.0.0/24 N1
        network create --subnet 10.131.0.0/24 N2
        run -d --name C1 --network N1 -p 18004:80 busybox sleep 1000
        serve C1 80 hello
        run -d --name C2 --network N2 busybox sleep 1000
        fetch C2 http://10.131.0.1:18004/
        fetch C2 http://10.130.0.2/
        fetch C1 http://10.130.0.1:18004/
    """,
    "ports follow the networks": """
        network create --subnet 10.137.0.0/24 N1
        network create --subnet 10.138.0.0/24 N2
        run -d --name C1 --network N1 -p 18051:80 busybox sleep 1000
        serve C1 80 hello
        network connect N2 C1
        host busybox wget -qO- -T 2 http://127.0.0.1:18051/
        network disconnect N1 C1
        host busybox wget -qO- -T 2 http://127.0.0.1:18051/
        port C1
        network disconnect N2 C1
        port C1
        network connect N1 C1
        port C1
    """,
    "ports where containers may not talk": """
        network create -o com.docker.network.bridge.enable_icc=false --subnet 10.139.0.0/24 N1
        run -d --name C1 --network N1 -p 18061:80 busybox sleep 1000
        run -d --name C2 --network N1 busybox sleep 1000
        serve C1 80 hello
        fetch C2 http://10.139.0.2/
        fetch C2 http://10.139.0.1:18061/
        fetch C1 http://10.139.0.1:18061/
        host busybox wget -qO- -T 2 http://10.139.0.2/
    """,
    "ports of loopback alone": """
        network create --subnet 10.140.0.0/24 N1
        run -d --name C1 --network N1 -p 127.0.0.1:18063:80 busybox sleep 1000
        run -d --name C2 --network N1 busybox sleep 1000
        serve C1 80 hello
        host busybox wget -qO- -T 2 http://127.0.0.1:18063/
        fetch C2 http://10.140.0.1:18063/
        fetch C1 http://10.140.0.1:18063/
    """,
    "ports that any may be": """
        run -d --name C1 -p 80 -p 18010-18011:90-91 -P --expose 95 busybox sleep 1000
        host sh -c 'docker port C1 | wc -l'
        port C1 90
        inspect -f '{{len .NetworkSettings.Ports}}' C1
    """,
    "ports of host and none": """
        run --rm --network host -p 18005:80 busybox true
        run --rm --network none -p 18006:80 busybox true
    """,
    "wrong ports": """
        run --rm -p 99999:80 busybox true
        run --rm -p 80:nonsense busybox true
        run --rm --name C1 -p 10.255.255.1:18007:80 busybox true
        run --rm --network N9 -p 18008:80 busybox true
    """,
    "port without a container": """
        port C9
        create --name C1 -p 18009:80 busybox true
        port C1
        port C1 80
    """,
    # The predefined networks.
    "host network": """
        run --rm --network host busybox sh -c 'ip -o link | grep -c " lo:"'
        run --rm --network host --hostname mine busybox hostname
        run -d --name C1 --network host busybox sleep 1000
        network inspect -f '{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}' host
        inspect -f '{{.HostConfig.NetworkMode}} {{range $n, $v := .NetworkSettings.Networks}}{{$n}}{{end}}' C1
    """,
    "none network": """
        run --rm --network none busybox ip -o addr
        run --rm --network none busybox ip route
        run -d --name C1 --network none busybox sleep 1000
        inspect -f '{{range $n, $v := .NetworkSettings.Networks}}{{$n}} {{$v.IPAddress}}{{end}}' C1
        network inspect -f '{{len .Containers}}' none
    """,
    "default network": """
        run -d --name C1 busybox sleep 1000
        inspect -f '{{.HostConfig.NetworkMode}} {{range $n, $v := .NetworkSettings.Networks}}{{$n}}{{end}}' C1
        run -d --name C2 --network default busybox sleep 1000
        lookup C1 C2
        network disconnect bridge C1
        exec C1 ip -o -4 addr
        network connect bridge C1
        exec C1 sh -c 'ip -o -4 addr | wc -l'
    """,
    "networks of run": """
        network create --subnet 10.132.0.0/24 N1
        network create --subnet 10.133.0.0/24 N2
        create --name C1 --network name=N1,alias=a,ip=10.132.0.7 busybox sleep 1000
        start C1
        inspect -f '{{range $n, $v := .NetworkSettings.Networks}}{{$n}}={{$v.IPAddress}};{{end}}' C1
        lookup C1 a
        run --rm --network nonsense busybox true
        run --rm --network N1 --network N1 busybox true
        run --rm --network host --network N1 busybox true
    """,
    "events": """
        network create --label e=1 N1
        run -d --name C1 --network N1 busybox sleep 1000
        network disconnect N1 C1
        network connect N1 C1
        rm -f C1
        network rm N1
        host sleep 1.1
        host sh -c "docker events --since 60s --until 0s --filter type=network --filter network=N1 --format '{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.type}}'"
    """,
    "ps by network": """
        network create N1
        run -d --name C1 --network N1 busybox sleep 1000
        create --name C2 --network N1 busybox true
        ps --filter network=N1 --format {{.Names}}
        ps -a --filter network=N1 --format '{{.Names}} {{.Networks}}'
        ps --filter network=N9 -q
    """,
    "exec and inspect of interfaces": """
        network create --subnet 10.134.0.0/24 N1
        run -d --name C1 --network N1 busybox sleep 1000
        exec C1 sh -c "ls /sys/class/net | sort"
        exec C1 cat /sys/class/net/eth0/mtu /sys/class/net/eth0/operstate
        inspect -f '{{.NetworkSettings.IPAddress}}|{{.NetworkSettings.Gateway}}|{{.NetworkSettings.Bridge}}|{{.NetworkSettings.MacAddress}}' C1
        stop -t 0 C1
        inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}|{{.EndpointID}}|{{.Gateway}}{{end}}' C1
    """,
    "macvlan": """
        host ip link add dmy-C1 type veth peer name pmy-C1
        host ip link set dmy-C1 up
        host ip link set pmy-C1 up
        network create -d macvlan -o parent=dmy-C1 --subnet 10.135.0.0/24 --gateway 10.135.0.1 N1
        network inspect -f '{{.Driver}} {{json .Options}}' N1
        run -d --name C1 --network N1 busybox sleep 1000
        run -d --name C2 --network N1 busybox sleep 1000
        ping C1 C2
        exec C1 ip route
        rm -f C1 C2
        network rm N1
        host ip link del dmy-C1
    """,
    "crash and restart policy": """
        network create --subnet 10.136.0.0/24 N1
        run -d --name C1 --network N1 --restart always busybox sleep 1000
        run -d --name C2 --network N1 busybox sleep 1000
        exec C1 kill -9 1
        host sh -c 'kill -9 $(docker inspect -f {{.State.Pid}} C1)'
        host sh -c 'while [ $(docker inspect -f {{.RestartCount}}{{.State.Running}} C1) != 1true ]; do sleep 0.05; done'
        exec C2 timeout 10 sh -c 'until ping -c1 -W1 C1 >/dev/null 2>&1; do sleep 0.1; done; echo yes'
        network inspect -f '{{len .Containers}}' N1
    """,
}


class Difference(NamedTuple):
    """What differs in one line: a part of each outcome, and why."""

    docker: str
    ours: str
    why: str


_OLD_HOST = "container cannot be disconnected from host network or connected to host network"
_HOST = "since 26 it says which of the two"
_MAC_VERSION = "the command refuses to tell an old engine a hardware address"
_ALIASES = "old Docker lists the short id among the aliases; since 25 it is in DNSNames alone"

DIFFERS: dict[tuple[str, int], Difference] = {
    ("no names", 1): Difference("network with name  already exists", "invalid name: name is empty",
                                "old Docker says so of the empty name"),
    ("connect to host and none", 2): Difference(_OLD_HOST, "cannot connect container to host network", _HOST),
    ("connect to host and none", 9): Difference(_OLD_HOST, "cannot disconnect container from host network", _HOST),
    ("events", 8): Difference("disconnect N1 bridge\ndisconnect", "disconnect N1 bridge\nconnect",
                              "old Docker tells twice of a disconnection by hand"),
    ("names", 11): Difference("0 3", "0 2", _ALIASES),
    ("internal networks", 5): Difference("0 1", "1 0", "since 26 an internal network has no way out, not even a route"),
    ("none network", 1): Difference("127.0.0.1/8", "::1/128", "since 26 loopback has IPv6 wherever the kernel has"),
    ("default network", 2): Difference("default bridge", "bridge bridge", "since 26 the default is told by its name"),
    ("shared namespaces", 14): Difference("API version", "mac-address and the network mode", _MAC_VERSION),
    ("hardware addresses", 3): Difference("API version", "<id>", _MAC_VERSION),
}

# What old Docker says in other words than the present one, whose words are ours.
_SETTINGS = "invalid endpoint settings:\n"
_START_FAILED = (
    r"(?<=daemon: )(?=no available IPv|network [^:]* not found|cannot create endpoint on configuration-only|"
    r"Address already in use|driver failed programming)"
)
OLD_WORDS: tuple[tuple[str, str], ...] = (
    (r"(?<=daemon: )Pool overlaps", "invalid pool request: Pool overlaps"),
    (r"Invalid subnet (\S+) : invalid CIDR address: \S+",
     r"invalid network config:\ninvalid subnet \1: invalid CIDR block notation"),
    (r"Invalid filter", "invalid filter"),
    (r"Container <id> is not running", "container <id> is not running"),
    (r"network (N\d) id <id> has active endpoints", r'network \1 has active endpoints (name:"C1" id:"<short id>")'),
    (r"(?<=daemon: )network-scoped alias is supported only for containers in user defined networks",
     "invalid endpoint settings:\nnetwork-scoped aliases are only supported for user-defined networks"),
    (r"Invalid address (\S+): It does not belong to any of this network's subnets",
     r"invalid config for network N1: invalid endpoint settings:\nno configured subnet or ip-range contain the IP address \1"),
    (r"user specified IP address is supported on user defined networks only",
     f"invalid config for network bridge: {_SETTINGS}user-specified IP address is supported on user-defined networks only"),
    (r"(?<=daemon: )user specified IP address is supported only when",
     f"invalid config for network N1: {_SETTINGS}user specified IP address is supported only when"),
    (r"cannot join network of a non running container: <id>",
     "cannot join network namespace of a non running container: container C1 is exited"),
    (r"(?<=daemon: )No such container: C9\n\nRun 'docker run",
     "joining network namespace of container: No such container: C9\n\nRun 'docker run"),
    (r"Error starting userland proxy: listen tcp4 (\S+): bind: cannot assign",
     r"failed to bind host port for \1:<ip>:80/tcp: cannot assign"),
)


class Side(NamedTuple):
    """An engine: how docker is run against it, and how a command in its network namespace."""

    docker: Callable[..., subprocess.CompletedProcess[str]]
    host: Callable[[list[str]], subprocess.CompletedProcess[str]]


class Outcome(NamedTuple):
    """What one line gave."""

    line: str
    code: int
    out: str
    err: str


def text_of(outcome: Outcome) -> str:
    """Return what is compared of an outcome."""
    return f"{outcome.code} {outcome.out}" + (f" [{outcome.err}]" if outcome.err else "")


def in_new_words(outcome: Outcome) -> Outcome:
    """Return an outcome of the old Docker in the present one's words."""
    err = outcome.err
    if outcome.line.startswith(("run ", "start ")):
        # Since 28 errors of a start's network part say so.
        err = re.sub(_START_FAILED, "failed to set up container networking: ", err)
    for pattern, put in OLD_WORDS:
        err = re.sub(pattern, put, err)
    return outcome._replace(err=err)


def lines_of(name: str) -> list[str]:
    """Return the lines of a sequence."""
    return [line.strip() for line in SEQUENCES[name].strip().splitlines()]


class Run:
    """One sequence on one engine."""

    def __init__(self, name: str, side: Side) -> None:
        self._name, self._side = name, side
        self._tag = f"{[*SEQUENCES].index(name):02d}"

    def run(self) -> list[Outcome]:
        """Run all lines and tidy up."""
        text = SEQUENCES[self._name]
        try:
            return [self._line(line) for line in lines_of(self._name)]
        finally:
            for kind, letter in (("container", "C"), ("network", "N")):
                names = [self._own(found) for found in sorted(set(re.findall(rf"\b{letter}\d\b", text)))]
                if names:
                    self._side.docker(kind, "rm", "-f", *names)

    def _own(self, text: str) -> str:
        return re.sub(r"\b([NC])(\d?)\b", lambda m: f"{m[1].lower()}{m[2]}-{self._tag}" if m[2] else m[0], text)

    def _line(self, line: str) -> Outcome:
        words = shlex.split(self._own(line))
        verb = words[0]
        if verb == "ping":
            done = self._in(words[1], f"ping -c1 -W1 {words[2]} >/dev/null 2>&1 && echo yes || echo no")
        elif verb == "lookup":
            script = f"exec 2>/dev/null; timeout 2 nslookup {words[2]} 127.0.0.11 | sed -n '4,$s/^Address: *//p' | sort | grep . || echo none"
            done = self._in(words[1], script)
        elif verb == "fetch":
            done = self._in(words[1], f"wget -qO- -T 2 {words[2]} 2>/dev/null || echo no")
        elif verb == "serve":
            script = f"mkdir -p /www && echo {words[3]} > /www/index.html && httpd -p {words[2]} -h /www"
            done = self._in(words[1], script)
        elif verb == "host":
            done = self._side.host(words[1:])
        else:
            done = self._side.docker(*words)
        return Outcome(line, done.returncode, self._plain(done.stdout), self._plain(done.stderr))

    def _in(self, container: str, script: str) -> subprocess.CompletedProcess[str]:
        return self._side.docker("exec", container, "sh", "-c", script)

    def _plain(self, text: str) -> str:
        for pattern, put in (
            (rf"\b([nc])(\d)-{self._tag}\b", lambda m: f"{m[1].upper()}{m[2]}"),
            (r"\b[0-9a-f]{64}\b", "<id>"),
            (r"\b[0-9a-f]{12}\b", "<short id>"),
            (r"\b(172\.(1[6-9]|2\d|3[01])|192\.168)\.\d+\.\d+", "<ip>"),
            (r"\b02:42(:[0-9a-f]{2}){4}\b|\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b", "<mac>"),
            (r"\b(veth[0-9a-f]{7}|br-<short id>)\b", "<interface>"),
            (r"^(\d+: )", "<n>: "),
            (r"@if\d+", "@if"),
            (r"\d+\.\d+/\d+\.\d+/\d+\.\d+ ms", "<times>"),
        ):
            text = re.sub(pattern, put, text, flags=re.MULTILINE)
        return text.rstrip("\n")


def wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
