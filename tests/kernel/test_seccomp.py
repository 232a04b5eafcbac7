"""System call filters on the real kernel."""

import ctypes
import errno
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from barque.base.errors import InvalidInputError
from barque.kernel import process, seccomp
from barque.runtime import profiles

pytestmark = pytest.mark.kernel
_SPEC = Path(__file__).resolve().parents[3] / "shared" / "specs" / "seccomp-default.json"
_libc = ctypes.CDLL(None, use_errno=True)


def _filtered(profile: dict[str, Any], call: str, *arguments: int) -> int:
    """Return the errno of a call under the profile in a child, 0 for success; -signal when it is killed."""
    program = seccomp.compile_profile(profile)
    pid = os.fork()
    if pid == 0:
        code = 97
        try:
            process.prctl(process.PR_SET_NO_NEW_PRIVS, 1)
            seccomp.attach(program)
            result = _libc.syscall(seccomp.numbers("x86_64")[call], *[ctypes.c_ulong(value) for value in arguments])
            code = ctypes.get_errno() if result < 0 else 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _allow_but(*rules: dict[str, Any]) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(rules)}


def test_an_errno_rule_answers_its_number() -> None:
    rule = {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EXDEV}
    assert _filtered(_allow_but(rule), "getppid") == errno.EXDEV
    assert _filtered(_allow_but(rule), "getpid") == 0


def test_a_killing_rule_kills() -> None:
    assert _filtered(_allow_but({"names": ["getppid"], "action": "SCMP_ACT_KILL_PROCESS"}), "getppid") == -31


@pytest.mark.parametrize(
    ("operator", "value", "second", "hits", "misses"),
    [
        ("SCMP_CMP_EQ", 1 << 40, 0, [1 << 40], [0, (1 << 40) + 1, 1]),
        ("SCMP_CMP_NE", 7, 0, [0, 8, (1 << 32) + 7], [7]),
        ("SCMP_CMP_LT", 1 << 33, 0, [0, (1 << 33) - 1, 5], [1 << 33, 1 << 34]),
        ("SCMP_CMP_LE", 1 << 33, 0, [0, 1 << 33], [(1 << 33) + 1]),
        ("SCMP_CMP_GT", 1 << 33, 0, [(1 << 33) + 1, 1 << 40], [1 << 33, 0]),
        ("SCMP_CMP_GE", 1 << 33, 0, [1 << 33, 1 << 40], [(1 << 33) - 1]),
        ("SCMP_CMP_MASKED_EQ", 0xF0000000F, 0x100000003, [0x100000003, 0x100000FF3], [0x100000004, 3]),
    ],
)
def test_arguments_are_compared_in_all_64_bits(
    operator: str, value: int, second: int, hits: list[int], misses: list[int]
) -> None:
    argument = {"index": 1, "value": value, "valueTwo": second, "op": operator}
    rule = {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 88, "args": [argument]}
    for number in hits:
        assert _filtered(_allow_but(rule), "getppid", 0, number) == 88, hex(number)
    for number in misses:
        assert _filtered(_allow_but(rule), "getppid", 0, number) == 0, hex(number)


def test_two_conditions_on_different_arguments_must_both_hold() -> None:
    arguments = [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 2, "op": "SCMP_CMP_EQ"}]
    rule = {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 88, "args": arguments}
    assert _filtered(_allow_but(rule), "getppid", 1, 2) == 88
    assert _filtered(_allow_but(rule), "getppid", 1, 3) == 0


def test_two_conditions_on_one_argument_are_alternatives() -> None:
    arguments = [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}]
    rule = {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 88, "args": arguments}
    assert [_filtered(_allow_but(rule), "getppid", number) for number in (1, 2, 3)] == [88, 88, 0]


def test_the_default_profile_refuses_what_needs_capabilities_and_admits_the_rest() -> None:
    bare = profiles.resolve(profiles.default_profile(), [])
    assert _filtered(bare, "mount", 0, 0, 0, 0, 0) == errno.EPERM
    assert _filtered(bare, "clone3", 0, 0) == errno.ENOSYS
    assert _filtered(bare, "getpid") == 0
    assert _filtered(bare, "personality", 0xFFFFFFFF) == 0
    assert _filtered(bare, "personality", 0x0040000) == errno.EPERM
    assert _filtered(bare, "socket", 40, 1, 0) == errno.EPERM
    admin = profiles.resolve(profiles.default_profile(), ["CAP_SYS_ADMIN"])
    assert _filtered(admin, "mount", 0, 0, 0, 0, 0) != errno.EPERM or os.geteuid() != 0


def test_our_default_profile_is_dockers() -> None:
    if not _SPEC.exists():
        pytest.skip("the published profile is not here to compare with")
    published = json.loads(_SPEC.read_text())
    ours = profiles.default_profile()

    def essence(profile: dict[str, Any]) -> list[Any]:
        keys = ("names", "action", "errnoRet", "args", "includes", "excludes")
        return [{key: rule[key] for key in keys if rule.get(key)} for rule in profile["syscalls"]]

    assert essence(ours) == essence(published)
    assert ours["archMap"] == published["archMap"]
    assert ours["defaultAction"] == published["defaultAction"]


@pytest.mark.parametrize(
    "profile",
    [
        {"defaultAction": "SCMP_ACT_NONSENSE"},
        {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_Z80"]},
        _allow_but({"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 9, "op": "SCMP_CMP_EQ"}]}),
        _allow_but({"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "op": "="}]}),
        _allow_but({"names": ["read"], "action": "SCMP_ACT_KILL", "errnoRet": 3}),
    ],
)
def test_a_malformed_profile_is_refused(profile: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="seccomp profile"):
        seccomp.compile_profile(profile)


@given(st.sets(st.integers(0, 400)), st.integers(0, 500))
def test_the_search_finds_each_number(named: set[int], asked: int) -> None:
    table = {number: name for name, number in seccomp.numbers("x86_64").items()}
    names = [table[number] for number in named if number in table]
    program = seccomp.compile_profile(_allow_but({"names": names, "action": "SCMP_ACT_TRAP"}))
    expected = 0x30000 if table.get(asked) in names else 0x7FFF0000
    assert _interpret(program, asked) == expected


def test_calls_of_32_bit_arm_have_numbers_of_their_own() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_ARM"],
        "syscalls": [
            {"names": ["read", "set_tls", "openat2"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
        ],
    }  # fmt: skip
    program = seccomp.compile_profile(profile)
    allowed, refused, unknown = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
    arm = 0x40000028
    answers = {3: allowed, 437: allowed, 983045: allowed, 983042: unknown, 4: refused, 440: unknown, 136: refused}
    assert {number: _interpret(program, number, arm) for number in answers} == answers
    assert _interpret(program, 136, arm, {16: 8}) == allowed
    assert _interpret(program, 0) == allowed


def _interpret(program: bytes, number: int, arch: int = 0xC000003E, words: dict[int, int] | None = None) -> int:
    """Run the program as the kernel would; words are those of the arguments by offset, else 0."""
    accumulator, position = 0, 0
    while True:
        code, jt, jf, k = struct.unpack_from("=HBBI", program, position * 8)
        position += 1
        if code == 0x20:
            accumulator = {0: number, 4: arch, **(words or {})}.get(k, 0)
        elif code == 0x06:
            return int(k)
        elif code == 0x05:
            position += k
        elif code in (0x15, 0x25, 0x35):
            holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[code]
            position += jt if holds else jf
        else:
            accumulator &= k
