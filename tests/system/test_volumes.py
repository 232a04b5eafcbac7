"""Volumes and mounts on a real engine, driven by the docker command and by ours."""

import http.server
import json
import os
import socketserver
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from under_test import until

pytestmark = pytest.mark.system


def mounted_below(path):
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(path) in line]


def in_container(engine, *words):
    return engine.docker("run", "--rm", *words)


def error_of(engine, *words):
    result = engine.docker_result(*words)
    assert result.returncode != 0, result.stdout
    return result.stderr


def test_a_tmpfs_volume_is_one_for_all_its_containers_and_goes_with_the_last(engine):
    engine.docker("volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=8m,uid=33", "fast")
    engine.docker("run", "-d", "--name", "tm1", "-v", "fast:/m", "busybox", "sleep", "100")
    engine.docker("run", "-d", "--name", "tm2", "-v", "fast:/m", "busybox", "sleep", "100")
    engine.docker("exec", "tm1", "sh", "-c", "echo shared > /m/file")
    assert engine.docker("exec", "tm2", "cat", "/m/file") == "shared"
    assert engine.docker("exec", "tm2", "stat", "-c", "%u", "/m") == "33"
    assert "8.0M" in engine.docker("exec", "tm2", "df", "-h", "/m")
    place = engine.docker("volume", "inspect", "-f", "{{.Mountpoint}}", "fast")
    assert mounted_below(place)
    engine.docker("rm", "-f", "tm1")
    assert mounted_below(place)
    engine.docker("rm", "-f", "tm2")
    until(lambda: not mounted_below(place))
    engine.docker("volume", "rm", "fast")


def test_a_bind_volume_shows_a_folder_of_the_host_and_its_removal_leaves_the_folder_alone(engine, tmp_path):
    (tmp_path / "precious").write_text("kept")
    engine.docker("volume", "create", "-o", "type=none", "-o", f"device={tmp_path}", "-o", "o=bind,ro", "shown")
    engine.docker("run", "-d", "--name", "bindvol", "-v", "shown:/m", "busybox", "sleep", "100")
    assert engine.docker("exec", "bindvol", "cat", "/m/precious") == "kept"
    assert "Read-only" in engine.docker_result("exec", "bindvol", "touch", "/m/new").stderr
    engine.docker("rm", "-f", "bindvol")
    engine.docker("volume", "rm", "shown")
    assert (tmp_path / "precious").read_text() == "kept"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "colour=red"], 'invalid option: "colour"'),
        (["-o", "type=nfs"], 'missing required option: "device"'),
        (["-o", "o=bind"], 'missing required option: "'),
        (["-o", "type=cifs", "-o", "device=//host:445/x"], "port not allowed in CIFS device URL"),
        (["-d", "nosuchdriver"], 'error looking up volume plugin nosuchdriver: plugin "nosuchdriver" not found'),
    ],
)
def test_bad_volume_options_are_refused_with_dockers_words(engine, options, words):
    assert words in error_of(engine, "volume", "create", *options, "badopts")
    assert engine.docker("volume", "ls", "-q", "--filter", "name=badopts") == ""


def test_a_volume_that_cannot_be_mounted_stops_the_start_and_its_password_is_not_told(engine):
    engine.docker("volume", "create", "-o", "type=ext4", "-o", "device=/dev/no-such-device",
                  "-o", "o=password=topsecret", "broken")  # fmt: skip
    text = error_of(engine, "run", "--name", "onbroken", "-v", "broken:/m:nocopy", "busybox", "true")
    assert "failed to mount local volume: mount /dev/no-such-device:" in text
    assert "topsecret" not in text
    engine.docker("rm", "-f", "onbroken")
    engine.docker("volume", "rm", "broken")


def test_copy_up_fills_an_empty_volume_unless_nocopy_says_otherwise(engine):
    assert "passwd" in in_container(engine, "-v", "cu1:/etc", "busybox", "ls", "/etc")
    assert "passwd" not in in_container(engine, "-v", "cu2:/etc:nocopy", "busybox", "ls", "/etc")
    no_copy = "type=volume,src=cu3,dst=/etc,volume-nocopy"
    assert "passwd" not in in_container(engine, "--mount", no_copy, "busybox", "ls", "/etc")
    engine.docker("volume", "rm", "cu1", "cu2", "cu3")


def test_volumes_from_gives_the_same_places_and_ro_makes_them_read_only(engine, tmp_path):
    engine.docker("create", "--name", "vf", "-v", "vfdata:/d", "-v", f"{tmp_path}:/b", "-v", "/anon", "busybox")
    in_container(engine, "--volumes-from", "vf", "busybox", "sh", "-c", "echo 1 > /d/x; echo 2 > /b/y; echo 3 > /anon/z")
    script = "cat /d/x /b/y /anon/z; touch /d/new /b/new 2>&1"
    result = engine.docker_result("run", "--rm", "--volumes-from", "vf:ro", "busybox", "sh", "-c", script)
    assert result.stdout.split()[:3] == ["1", "2", "3"]
    assert result.stdout.count("Read-only file system") == 2
    assert "No such container: nobody" in error_of(engine, "create", "--volumes-from", "nobody", "busybox")
    assert "invalid mode: nocopy" in error_of(engine, "create", "--volumes-from", "vf:nocopy", "busybox")
    engine.docker("rm", "-v", "vf")
    engine.docker("volume", "rm", "vfdata")


def test_a_single_file_can_be_bound_and_a_missing_source_is_made_only_for_v(engine, tmp_path):
    file = tmp_path / "one"
    file.write_text("alone")
    assert in_container(engine, "-v", f"{file}:/etc/one", "busybox", "cat", "/etc/one") == "alone"
    in_container(engine, "-v", f"{tmp_path}/made:/m", "busybox", "true")
    assert (tmp_path / "made").is_dir()
    mount = f"type=bind,src={tmp_path}/missing,dst=/m"
    assert f"bind source path does not exist: {tmp_path}/missing" in error_of(engine, "create", "--mount", mount, "busybox")
    engine.barque("run", "--rm", "--mount", mount + ",bind-create-src", "busybox", "true")
    assert (tmp_path / "missing").is_dir()


def test_read_only_binds_are_read_only_all_the_way_down_unless_asked_otherwise(engine, tmp_path):
    (tmp_path / "inner").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tmp_path / "inner")], check=True)
    try:
        bind = f"type=bind,src={tmp_path},dst=/m,readonly"

        def touch(mount):
            return engine.docker_result("run", "--rm", "--mount", mount, "busybox", "touch", "/m/inner/x").stderr

        assert "Read-only" in touch(bind)
        assert "Read-only" in touch(bind + ",bind-recursive=readonly,bind-propagation=rprivate")
        assert touch(bind + ",bind-recursive=writable") == ""
        listed = engine.docker("run", "--rm", "--mount", bind + ",bind-recursive=disabled", "busybox", "ls", "/m/inner")
        assert listed == ""
    finally:
        subprocess.run(["umount", str(tmp_path / "inner")], check=True)


def test_propagation_carries_mounts_of_the_host_into_the_container(engine, tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], check=True)
    subprocess.run(["mount", "--make-shared", str(tmp_path)], check=True)
    try:
        (tmp_path / "late").mkdir()
        engine.docker("run", "-d", "--name", "follows", "-v", f"{tmp_path}:/m:rslave", "busybox", "sleep", "100")
        engine.docker("run", "-d", "--name", "private", "-v", f"{tmp_path}:/m", "busybox", "sleep", "100")
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tmp_path / "late")], check=True)
        (tmp_path / "late" / "seen").write_text("")
        assert engine.docker("exec", "follows", "ls", "/m/late") == "seen"
        assert engine.docker("exec", "private", "ls", "/m/late") == ""
        engine.docker("rm", "-f", "follows", "private")
    finally:
        subprocess.run(["umount", "-R", str(tmp_path)], check=True)


def test_tmpfs_takes_all_its_options_and_refuses_others(engine):
    shown = in_container(engine, "--tmpfs", "/t:size=4m,mode=1770,uid=33,exec,nr_inodes=100", "busybox", "sh", "-c",
                         "grep ' /t ' /proc/mounts; stat -c '%a %u' /t")  # fmt: skip
    assert "size=4096k" in shown and "nr_inodes=100" in shown and "noexec" not in shown
    assert shown.endswith("1770 33")
    words = in_container(engine, "--mount", "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700", "busybox", "grep", " /t ", "/proc/mounts")
    assert "size=1024k" in words and "noexec" in words and "mode=700" in words
    assert 'Invalid tmpfs option ["colour" "red"]' in error_of(engine, "create", "--tmpfs", "/t:colour=red", "busybox")


def test_a_part_of_a_volume_is_mounted_and_no_link_leads_out_of_it(engine):
    in_container(engine, "-v", "parts:/v", "busybox", "sh", "-c", "mkdir -p /v/a/b; echo in > /v/a/b/f; ln -s /etc /v/out; ln -s ../../.. /v/up")
    part = "type=volume,src=parts,dst=/m,volume-subpath="
    assert in_container(engine, "--mount", part + "a/b", "busybox", "cat", "/m/f") == "in"
    assert in_container(engine, "--mount", part + "a/b/f", "busybox", "cat", "/m") == "in"
    for way_out in ("out", "up", "nothing"):
        assert "cannot access path" in error_of(engine, "run", "--rm", "--mount", part + way_out, "busybox", "true")
    assert "subpath must be a relative path within the volume" in error_of(
        engine, "create", "--mount", part + "../x", "busybox")  # fmt: skip
    engine.docker("volume", "rm", "parts")


def test_an_image_can_be_mounted_read_only_whole_and_in_part_and_counts_as_used(engine):
    engine.docker("tag", "busybox", "mounted:1")
    whole = "type=image,src=mounted:1,dst=/img"
    assert in_container(engine, "--mount", whole, "busybox", "cat", "/img/etc/group").startswith("root")
    assert "Read-only" in engine.docker_result("run", "--rm", "--mount", whole, "busybox", "touch", "/img/x").stderr
    part = whole + ",image-subpath=etc"
    assert in_container(engine, "--mount", part, "busybox", "cat", "/img/group").startswith("root")
    assert error_of(engine, "create", "--mount", "type=image,src=nosuch,dst=/i", "busybox")
    assert not [line for line in mounted_below(engine.root) if "/mounts/" in line]
    engine.docker("rmi", "mounted:1")


def test_a_volume_of_an_image_needs_no_slash_but_a_place_for_a_folder(engine):
    engine.docker("create", "--name", "bare", "busybox")
    engine.docker("commit", "-c", "VOLUME data", "bare", "holds:1")
    engine.docker("create", "--name", "slash", "holds:1")
    assert engine.docker("inspect", "-f", "{{range .Mounts}}{{.Type}} {{.Destination}}{{end}}", "slash") == "volume /data"
    engine.docker("rm", "-v", "slash", "bare")
    engine.docker("rmi", "holds:1")
    before = engine.docker("volume", "ls", "-q")
    assert "cannot mount volume over existing file" in error_of(engine, "create", "-v", "/etc/passwd", "busybox")
    assert engine.docker("volume", "ls", "-q") == before


def test_cp_of_a_container_that_does_not_run_shows_what_it_would_see(engine, tmp_path):
    engine.docker("run", "--name", "lower", "busybox", "sh", "-c", "mkdir /both; echo 1 > /both/one; echo x > /both/gone")
    engine.docker("commit", "lower", "layered:1")
    engine.docker("run", "--name", "upper", "layered:1", "sh", "-c", "rm /both/gone; echo 2 > /both/two")
    engine.docker("commit", "upper", "layered:2")
    backing = tmp_path / "backing"
    backing.mkdir()
    (backing / "seen").write_text("bound\n")
    engine.docker("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", f"device={backing}", "elsewhere")
    image = "type=image,src=layered:2,dst="
    engine.docker(
        "create", "--name", "lies", "-v", "elsewhere:/vol", "--mount", f"{image}/img", "--mount", f"{image}/part,image-subpath=both",
        "--add-host", "far:192.0.2.7", "busybox", "true",
    )  # fmt: skip
    for place, inside in (("/img/both", {"one", "two"}), ("/part", {"one", "two"}), ("/vol", {"seen"})):
        taken = tmp_path / place.replace("/", "_")
        engine.docker("cp", f"lies:{place}", str(taken))
        assert set(os.listdir(taken)) == inside
    (tmp_path / "new").write_text("new\n")
    engine.docker("cp", str(tmp_path / "new"), "lies:/vol/new")
    assert (backing / "new").read_text() == "new\n"
    assert "read-only" in error_of(engine, "cp", str(tmp_path / "new"), "lies:/img/new")
    assert not [line for line in mounted_below(engine.root) if "/volumes/elsewhere" in line]
    engine.docker("start", "-a", "lies")
    engine.docker("cp", "lies:/etc/hosts", str(tmp_path / "hosts"))
    assert "192.0.2.7\tfar" in (tmp_path / "hosts").read_text()
    engine.docker("rm", "lies", "lower", "upper")
    engine.docker("volume", "rm", "elsewhere")
    engine.docker("rmi", "layered:2", "layered:1")


def test_an_id_mapped_bind_gives_files_to_the_owner_of_the_folder(engine, tmp_path):
    os.chown(tmp_path, 1000, 1000)
    engine.barque("run", "--rm", "-v", f"{tmp_path}:/m:idmap", "busybox", "sh", "-c", "touch /m/mine; stat -c %u /m > /m/seen")
    assert (tmp_path / "mine").stat().st_uid == 1000
    assert (tmp_path / "seen").read_text() == "0\n"
    mount = f"type=bind,src={tmp_path},dst=/m,idmap=uids=0-4000-10;gids=0-5000-10"
    engine.barque("run", "--rm", "--mount", mount, "busybox", "sh", "-c", "chmod 777 /m; touch /m/far", check=False)
    result = engine.run([sys.executable, "-m", "barque", "create", "-v", f"{tmp_path}:/m:idmap=uids=x", "busybox"])
    assert "invalid idmap" in result.stderr


def test_selinux_words_are_accepted_and_shown(engine, tmp_path):
    engine.docker("create", "--name", "lab", "-v", f"{tmp_path}:/m:ro,z", "-v", "labv:/v", "busybox")
    mounts = json.loads(engine.docker("inspect", "-f", "{{json .Mounts}}", "lab"))
    assert [(m["Destination"], m["Mode"], m["RW"]) for m in mounts] == [("/m", "ro,z", False), ("/v", "z", True)]
    engine.docker("rm", "lab")
    engine.docker("volume", "rm", "labv")


def test_binding_the_engines_own_folder_follows_the_host(engine):
    root = str(engine.root / "data")
    engine.docker("create", "--name", "own", "-v", f"{root}:/m", "busybox")
    assert engine.docker("inspect", "-f", "{{(index .Mounts 0).Propagation}}", "own") == "rslave"
    assert 'must use either propagation mode "rslave" or "rshared"' in error_of(
        engine, "create", "-v", f"{root}:/m:private", "busybox")  # fmt: skip
    engine.docker("rm", "own")


def test_volumes_are_listed_by_filters_and_pruned_anonymous_ones_first(engine):
    engine.docker("volume", "create", "--label", "team=a", "keep1")
    engine.docker("volume", "create", "keep2")
    engine.docker("create", "--name", "leaves", "-v", "/anon", "busybox")
    anonymous = engine.docker("inspect", "-f", "{{(index .Mounts 0).Name}}", "leaves")
    assert set(engine.docker("volume", "ls", "-q", "-f", "dangling=true").split()) >= {"keep1", "keep2"}
    assert anonymous in engine.docker("volume", "ls", "-q", "-f", "dangling=false")
    assert engine.docker("volume", "ls", "-q", "-f", "label=team=a") == "keep1"
    assert engine.docker("volume", "ls", "-q", "-f", "driver=other") == ""
    assert engine.docker("volume", "ls", "-q", "-f", "name=^keep[12]$", "-f", "name=(").split() == ["keep1", "keep2"]
    assert "invalid filter 'colour'" in error_of(engine, "volume", "ls", "-f", "colour=red")
    engine.docker("rm", "leaves")
    assert anonymous in engine.barque("volume", "prune", "--dry-run")
    assert anonymous in engine.docker("volume", "ls", "-q")
    pruned = engine.docker("volume", "prune", "-f")
    assert anonymous in pruned and "keep" not in pruned
    assert "keep1" in engine.docker("volume", "prune", "-af", "--filter", "label=team")
    assert "keep2" in engine.docker("volume", "ls", "-q")
    engine.docker("volume", "rm", "keep2")
    refused = engine.run([sys.executable, "-m", "barque", "volume", "update", "any"])
    assert "volume update only valid for cluster volumes, but swarm is unavailable" in refused.stderr


def test_a_volume_is_renamed_saved_and_restored(engine, tmp_path):
    in_container(engine, "-v", "first:/v", "busybox", "sh", "-c", "mkdir /v/d; echo data > /v/d/f; chown 33 /v/d/f; ln -s d/f /v/l")
    engine.barque("volume", "rename", "first", "second")
    assert engine.docker("volume", "ls", "-q", "-f", "name=first") == ""
    engine.barque("volume", "export", "-o", str(tmp_path / "v.tar"), "second")
    with tarfile.open(tmp_path / "v.tar") as tar:
        assert {member.name for member in tar} >= {"d", "d/f", "l"}
    engine.barque("volume", "import", "third", str(tmp_path / "v.tar"))
    engine.barque("volume", "backup", "--image", "saved:1", "second")
    engine.barque("volume", "restore", "--image", "saved:1", "fourth")
    for name in ("third", "fourth"):
        assert in_container(engine, "-v", f"{name}:/v", "busybox", "sh", "-c", "cat /v/l; stat -c %u /v/d/f") == "data\n33"
    in_container(engine, "-v", "third:/v", "busybox", "touch", "/v/old")
    engine.barque("volume", "import", "--clear", "third", str(tmp_path / "v.tar"))
    assert "old" not in in_container(engine, "-v", "third:/v", "busybox", "ls", "/v")
    (tmp_path / "bad").write_bytes(b"this is no archive" * 100)
    result = engine.run([sys.executable, "-m", "barque", "volume", "import", "--clear", "third", str(tmp_path / "bad")])
    assert result.returncode == 1
    engine.docker("run", "-d", "--name", "holds", "-v", "second:/v", "busybox", "sleep", "100")
    assert "volume is in use" in engine.run([sys.executable, "-m", "barque", "volume", "rename", "second", "x2"]).stderr
    engine.docker("rm", "-f", "holds")
    engine.docker("volume", "rm", "second", "third", "fourth")
    engine.docker("rmi", "saved:1")


class Plugin(http.server.BaseHTTPRequestHandler):
    """A volume plugin that keeps folders below its server's `root`."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        self.server.calls.append(self.path)
        answer = getattr(self, self.path.strip("/").replace(".", "_").lower())(body)
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *words):
        pass

    def _place(self, body):
        return str(self.server.root / body["Name"])

    def plugin_activate(self, body):
        return {"Implements": ["VolumeDriver"]}

    def volumedriver_capabilities(self, body):
        return {"Capabilities": {"Scope": "global"}}

    def volumedriver_create(self, body):
        if (body.get("Opts") or {}).get("fail"):
            return {"Err": "the shelf is full"}
        Path(self._place(body)).mkdir()
        return {"Err": ""}

    def volumedriver_remove(self, body):
        subprocess.run(["rm", "-r", self._place(body)], check=True)
        return {}

    def volumedriver_mount(self, body):
        self.server.users.add(body["ID"])
        return {"Mountpoint": self._place(body)}

    def volumedriver_unmount(self, body):
        self.server.users.discard(body["ID"])
        return {}

    def volumedriver_path(self, body):
        return {"Mountpoint": self._place(body)}

    def volumedriver_get(self, body):
        if not Path(self._place(body)).exists():
            return {"Err": "unknown volume"}
        return {"Volume": {"Name": body["Name"], "Mountpoint": self._place(body), "Status": {"shelf": 3}}}

    def volumedriver_list(self, body):
        return {"Volumes": [{"Name": p.name, "Mountpoint": str(p)} for p in self.server.root.iterdir()]}


@pytest.fixture
def plugin(engine, tmp_path):
    folder = engine.root / "exec" / "plugins"
    folder.mkdir(exist_ok=True)
    server = socketserver.ThreadingUnixStreamServer(str(folder / "shelf.sock"), Plugin)
    server.root, server.users, server.calls = tmp_path, set(), []
    # The handler prints the peer's address, which a unix socket has not.
    Plugin.address_string = lambda self: "engine"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    (folder / "shelf.sock").unlink()


def test_a_volume_plugin_is_used_by_dockers_protocol(engine, plugin, tmp_path):
    engine.docker("volume", "create", "-d", "shelf", "far")
    shown = json.loads(engine.docker("volume", "inspect", "far"))[0]
    assert (shown["Driver"], shown["Scope"], shown["Status"]) == ("shelf", "global", {"shelf": 3})
    assert shown["Mountpoint"] == str(tmp_path / "far")
    engine.docker("run", "-d", "--name", "reader", "-v", "far:/v", "busybox", "sleep", "100")
    engine.docker("exec", "reader", "sh", "-c", "echo x > /v/f")
    assert (tmp_path / "far" / "f").read_text() == "x\n"
    assert len(plugin.users) == 1
    engine.docker("rm", "-f", "reader")
    until(lambda: not plugin.users)
    (tmp_path / "elsewhere").mkdir()
    assert set(engine.docker("volume", "ls", "-q", "-f", "driver=shelf").split()) == {"far", "elsewhere"}
    assert "the shelf is full" in error_of(engine, "volume", "create", "-d", "shelf", "-o", "fail=1", "no")
    assert "volume name must be unique" in error_of(engine, "volume", "create", "-d", "local", "far")
    in_container(engine, "--volume-driver", "shelf", "-v", "named:/v", "busybox", "touch", "/v/y")
    assert (tmp_path / "named" / "y").exists()
    engine.docker("volume", "rm", "far", "elsewhere", "named")
    assert not list(tmp_path.iterdir())


def test_mounts_of_volumes_come_back_after_the_engine_was_killed(own_engine):
    own_engine.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "held")
    own_engine.docker("run", "-d", "--name", "one", "-v", "held:/m", "busybox", "sleep", "100")
    place = own_engine.docker("volume", "inspect", "-f", "{{.Mountpoint}}", "held")
    own_engine.kill_daemon()
    own_engine.docker("run", "-d", "--name", "two", "-v", "held:/m", "busybox", "sleep", "100")
    own_engine.docker("exec", "one", "touch", "/m/x")
    assert own_engine.docker("exec", "two", "ls", "/m") == "x"
    own_engine.docker("rm", "-f", "one")
    assert mounted_below(place)
    own_engine.docker("rm", "-f", "two")
    until(lambda: not mounted_below(place))


def test_mounts_are_added_to_a_running_container_and_taken_out_again(engine, tmp_path):
    (tmp_path / "f").write_text("late")
    engine.docker("run", "-d", "--name", "live", "busybox", "sleep", "1000")
    engine.barque("mount", "add", "-v", f"{tmp_path}:/in:ro", "-v", "livevol:/v", "--mount", "type=tmpfs,dst=/t,tmpfs-size=1m", "live")
    assert engine.docker("exec", "live", "cat", "/in/f") == "late"
    assert "Read-only" in engine.docker_result("exec", "live", "touch", "/in/x").stderr
    engine.docker("exec", "live", "touch", "/v/kept", "/t/y")
    assert "size=1024k" in engine.docker("exec", "live", "grep", " /t ", "/proc/mounts")
    engine.barque("mount", "add", "-v", f"{tmp_path}/f:/etc/one", "live")
    assert engine.docker("exec", "live", "cat", "/etc/one") == "late"
    listed = engine.barque("mount", "ls", "live")
    assert all(word in listed for word in ("/in", "livevol", "tmpfs", "/etc/one"))
    assert "volume is in use" in error_of(engine, "volume", "rm", "livevol")
    twice = engine.run([sys.executable, "-m", "barque", "mount", "add", "-v", f"{tmp_path}:/in", "live"])
    assert "Duplicate mount point: /in" in twice.stderr
    engine.docker("restart", "-t", "0", "live")
    assert engine.docker("exec", "live", "ls", "/in", "/v").split() == ["/in:", "f", "/v:", "kept"]
    engine.barque("mount", "rm", "live", "/in", "/v", "/t", "/etc/one")
    assert engine.docker("exec", "live", "sh", "-c", "ls /in /t /v; cat /etc/one").split() == ["/in:", "/t:", "/v:"]
    engine.docker("volume", "rm", "livevol")
    gone = engine.run([sys.executable, "-m", "barque", "mount", "rm", "live", "/proc"])
    assert "nothing is mounted at /proc" in gone.stderr
    engine.docker("rm", "-f", "live")


def test_a_container_cannot_bend_the_removal_of_a_mount_to_one_that_protects_the_host(engine, tmp_path):
    (tmp_path / "kcore").write_text("")
    engine.docker("run", "-d", "--name", "bends", "busybox", "sleep", "1000")
    engine.barque("mount", "add", "-v", f"{tmp_path}/kcore:/a/kcore", "bends")
    engine.docker("exec", "bends", "sh", "-c", "mv /a /b && ln -s /proc /a")
    result = engine.run([sys.executable, "-m", "barque", "mount", "rm", "bends", "/a/kcore"])
    assert result.returncode == 1
    assert engine.docker("exec", "bends", "sh", "-c", "head -c 4 /proc/kcore | wc -c") == "0"
    engine.docker("rm", "-f", "bends")
