"""Sequences of docker commands on images: names, lists, commits, removal, archives (see operations.py)."""

import shlex

_CONFIG = (
    "inspect -f '{{json .Config.Cmd}} {{json .Config.Entrypoint}} {{json .Config.Env}} {{json .Config.ExposedPorts}} "
    "{{json .Config.Labels}} {{json .Config.OnBuild}} {{json .Config.User}} {{json .Config.Volumes}} "
    "{{json .Config.WorkingDir}} {{json .Config.StopSignal}} {{json .Config.Healthcheck}} {{json .Config.Shell}}'"
)
_ROWS = "images --format '{{.Repository}} {{.Tag}} {{.Size}}'"
_STEPS = "history --format '{{.CreatedBy}}|{{.Size}}|{{.Comment}}'"
_CHANGES = {
    "CMD": ('CMD ["a", "b c"]', "CMD a b", "CMD []", "cmd x"),
    "ENTRYPOINT": ('ENTRYPOINT ["e"]', "ENTRYPOINT e f", "ENTRYPOINT []"),
    "ENV": ("ENV A=1 B=\"x y\"", "ENV A the rest", "ENV A", "ENV =x", "ENV A=1 B", "ENV PATH=/x", "ENV A=$PATH"),
    "EXPOSE": ("EXPOSE 80 53/udp", "EXPOSE 70-72/tcp", "EXPOSE x", "EXPOSE 0", "EXPOSE 70000", "EXPOSE 8080:80"),
    "LABEL": ("LABEL a=b c=\"d e\"", "LABEL a b", "LABEL a", "LABEL"),
    "ONBUILD": ("ONBUILD RUN x", "ONBUILD", "ONBUILD FROM x", "ONBUILD ONBUILD RUN x", "ONBUILD NOSUCH x"),
    "USER": ("USER www", "USER 33:33", "USER a b"),
    "VOLUME": ('VOLUME ["/a", "/b"]', "VOLUME /a /b", "VOLUME", 'VOLUME [""]'),
    "WORKDIR": ("WORKDIR /w", "WORKDIR w/../x", "WORKDIR a b", "WORKDIR"),
    "HEALTHCHECK": (
        "HEALTHCHECK --interval=3s --timeout=2s --start-period=1s --retries=4 CMD a b", 'HEALTHCHECK CMD ["a", "b"]',
        "HEALTHCHECK NONE", "HEALTHCHECK NONE x", "HEALTHCHECK CMD", "HEALTHCHECK x",
        "HEALTHCHECK --interval=x CMD a",
    ),
    "others": (
        'shell ["/bin/x"]', "run x", "copy a b", "add a b", "from x", "arg x", "maintainer x", "nosuch x", "x", "# x",
        "user a\nworkdir /b", "label a=b \\\n c=d", "ENTRYPOINT []\nCMD y", "CMD y\nENTRYPOINT z", "ENTRYPOINT z",
    ),
}  # fmt: skip


def _changed(changes: tuple[str, ...]) -> list[str]:
    lines = ["create --name cc busybox sh"]
    for change in changes:
        lines += [f"commit -c {shlex.quote(change)} cc made:1", f"{_CONFIG} made:1"]
    return [*lines, "rm cc", "rmi made:1", "image prune -f"]


COMMITS = {f"changes by {name}": _changed(changes) for name, changes in _CHANGES.items()} | {
    "a commit": [
        "run --name cc -e X=1 -l k=v -w /tmp -u root --entrypoint echo busybox hi", "commit -a 'me <m@x>' -m 'why not' cc made:1",
        f"{_CONFIG} made:1", "inspect -f '{{.Author}}|{{.Comment}}|{{len .RootFS.Layers}}|{{.Os}}|{{.Architecture}}' made:1",
        f"{_STEPS} made:1", "run --rm made:1", "rm cc", "rmi made:1",
    ],
    "only what was changed": [
        "run --name cc -v /vol busybox sh -c 'echo 12345 >/new; rm /etc/group; echo kept >/vol/x'", "commit cc made:1",
        f"{_ROWS} made", f"{_STEPS} made:1", "run --rm made:1 sh -c 'cat /new; ls /etc /vol'", "run --rm busybox ls /etc/group",
        "rm -v cc", "rmi made:1",
    ],
    "without a name, and what cannot be": [
        "run --name cc busybox touch /x", "commit cc", "image prune -f", "commit cc UPPER", "commit cc a:b:c", "commit nosuch made:1",
        "commit", "commit cc made@sha256:" + "0" * 64, "rm cc",
    ],
    "of a running container": [
        "run -d --name cc busybox sleep 100", "commit cc made:1", "inspect -f '{{.State.Status}}' cc", "commit -p=false cc made:1",
        "pause cc", "commit cc made:2", "inspect -f '{{.State.Status}}' cc", "unpause cc", "rm -f cc", "rmi made:1", "image prune -f", "rmi made:2",
    ],
}  # fmt: skip
NAMES = {
    "tags": [
        "tag busybox one:1", "tag one:1 two", "tag busybox host.example:5000/three/x:t", f"{_ROWS} one", f"{_ROWS} two:latest",
        f"{_ROWS} host.example:5000/three/x", f"{_ROWS} x", f"{_ROWS} one:2", "tag one:1 one:1", "rmi one:1 two host.example:5000/three/x:t",
    ],
    "what is no name": [
        f"tag busybox {word}"
        for word in ("UPPER", "''", "a:b:c", "-a", "a/", "/a", "a//b", "a:", "a:.x", "a..b", "a___b", "f" * 64, "a" * 256,
                     "x@sha256:1", "x@sha256:" + "0" * 64, "a:" + "t" * 129, "HOST/x/Y", "localhost/UP", "http://x/y")
    ] + ["tag nosuch x", "tag busybox", "rmi ''", "run UPPER", "run ''", "run"],
    "strange names that are some": [
        line
        for word in ("a__b", "a--b.c", "A.example/x", "localhost/x", "h:1/y", "a/b/c/d:T_1.x-y")
        for line in (f"tag busybox {word}", f"{_ROWS} -f dangling=false {word}", f"rmi {word}")
    ],
    "a moved name": [
        "run --name cc busybox touch /x", "commit cc moved:1", f"{_ROWS} moved", "commit cc moved:1", f"{_ROWS} -f dangling=true",
        "image prune -f", f"{_ROWS} -f dangling=true", "rm cc", "rmi moved:1",
    ],
}  # fmt: skip
LISTS = {
    "filters": [
        "run --name cc busybox touch /x", "commit -c 'LABEL who=me' cc later:1", "tag busybox one:1", "tag busybox deep/er:2",
        *(f"{_ROWS} -f {word}" for word in (
            "reference=one", "reference=one:1", "reference='o*'", "reference='*:1'", "reference='*/*'", "reference='deep/*:2'",
            "reference='[ol]*:1'", "reference='['", "label=who", "label=who=me", "label=who=you",
            "before=later:1", "since=busybox", "since=nosuch", "before=nosuch", "dangling=true", "dangling=false", "dangling=x",
            "nosuch=1", "nosuch", "reference=one -f reference=later", "reference=later -f label=who=you",
        )),
        f"{_ROWS} -a", "images -q --no-trunc one", "images --digests --format '{{.Digest}}' one", "images one two",
        "images --format 'table {{.Repository}}\\t{{.Tag}}' one", "images --format '{{.Nosuch}}' one",
        "rm cc", "rmi later:1 one:1 deep/er:2",
    ],
    "sizes": [
        "run --name cc busybox sh -c 'head -c 100000 /dev/zero >/zeros'", "commit cc big:1", f"{_ROWS} big", f"{_STEPS} big:1",
        "system df --format '{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}}'", "rm cc",
        "system df --format '{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}} {{.Reclaimable}}'", "rmi big:1",
    ],
    "history": ["history --format '{{.CreatedBy}}|{{.Comment}}|{{.Size}}' busybox", "history nosuch", "history -q --no-trunc nosuch"],
}  # fmt: skip
REMOVAL = {
    "a parent keeps its layers for its child": [
        "run --name pp busybox sh -c 'echo 1 >/one'", "commit pp parent:1", "run --name kk parent:1 sh -c 'echo 2 >/two'",
        "commit kk child:1", "rm pp kk", "rmi parent:1", "run --rm child:1 cat /one /two", f"{_ROWS}", f"{_ROWS} -f dangling=true",
        "image prune -f", "rmi child:1", f"{_ROWS} -a",
    ],
    "a parent is kept on request": [
        "run --name pp busybox sh -c 'echo 1 >/one'", "commit pp parent:1", "run --name kk parent:1 sh -c 'echo 2 >/two'",
        "commit kk child:1", "rm pp kk", "rmi parent:1", "rmi --no-prune child:1", f"{_ROWS} -f dangling=true", "image prune -f",
    ],
    "a named parent stops the removal": [
        "run --name pp busybox sh -c 'echo 1 >/one'", "commit pp parent:1", "run --name kk parent:1 sh -c 'echo 2 >/two'",
        "commit kk child:1", "rm pp kk", "rmi child:1", f"{_ROWS} parent", "rmi parent:1",
    ],
    "used by a container": [
        "run --name pp busybox touch /x", "commit pp used:1", "tag used:1 used:2", "run -d --name uu used:1 sleep 100", "rmi used:2",
        "rmi used:1", "rmi -f used:1", "inspect -f '{{.State.Status}}' uu", "exec uu ls /x", "restart -t 0 uu", "exec uu ls /x",
        f"{_ROWS} -f dangling=true", "image prune -f", "rm -f uu pp", "image prune -f", f"{_ROWS} -f dangling=true",
    ],
    "several, some of which are not there": [
        "tag busybox one:1", "tag busybox two:1", "rmi one:1 nosuch two:1", "rmi -f nosuch", "rmi -f nosuch nosuch2", "rmi",
        "image rm nosuch", "rmi sha256:" + "0" * 64, "rmi 000000000000",
    ],
    "pruned": [
        "run --name pp busybox sh -c 'echo 1 >/one'", "commit -c 'LABEL keep=1' pp one:1", "commit -c 'LABEL keep=2' pp one:1",
        "commit pp two:1", "image prune -f --filter label=keep=2", "image prune -f --filter label!=keep", "image prune -f --filter nosuch=1",
        "image prune -f --filter until=1h", "image prune -f --filter until=x", "image prune -f --filter until=1s --filter until=2s",
        "rm pp", "image prune -f", "image prune -af --filter label=keep", f"{_ROWS}", "rmi two:1",
    ],
    "pruned with names": [
        "create --name pp busybox sh", "cp {dir}/hello pp:/", "commit -c 'LABEL old=1' pp parent:1", "create --name kk parent:1 sh",
        "cp {dir}/hello kk:/other", "commit kk child:1", "commit -c 'LABEL old=2' kk child:2", "rm pp kk", "create --name uu child:1",
        "image prune -af --filter label=old", f"{_ROWS}", "start -a uu", "rm uu", "image prune -af --filter label=old", f"{_ROWS}",
    ],
}  # fmt: skip
ARCHIVES = {
    "saved and loaded": [
        "tag busybox one:1", "tag busybox two:1", "save -o {dir}/a.tar one:1 two:1", "rmi one:1 two:1", "load -i {dir}/a.tar",
        f"{_ROWS} -f reference=one -f reference=two", "load -q -i {dir}/a.tar", "rmi one:1 two:1",
    ],
    "what cannot be saved or loaded": [
        "save nosuch", "save -o /no/such/x busybox", "save -o {dir} busybox", "save", "load -i {dir}/nosuch", "load -i {dir}/hello",
        "load x", "save busybox nosuch",
    ],
    "exported and imported": [
        "run --name cc -v /vol busybox sh -c 'echo 1 >/new; echo 2 >/vol/x'", "export -o {dir}/e.tar cc",
        "import -m 'from there' -c 'CMD [\"cat\", \"/new\"]' -c 'ENV A=b' {dir}/e.tar im:1", f"{_CONFIG} im:1", "run --rm im:1",
        "history --format '{{.CreatedBy}}|{{.Comment}}' im:1", "inspect -f '{{.Os}} {{.Architecture}} {{len .RootFS.Layers}}' im:1",
        "run --rm im:1 ls /vol", "rm -v cc", "rmi im:1",
    ],
    "what cannot be imported": [
        "import {dir}/nosuch x:1", "import {dir}/hello x:1", "import -c 'nosuch x' {dir}/hello x:1", "import {dir}/hello UPPER",
        "import {dir}/hello x@sha256:" + "0" * 64, "import", "export nosuch", "export -o {dir} nosuch",
    ],
}  # fmt: skip
