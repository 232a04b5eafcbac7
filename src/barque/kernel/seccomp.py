"""System call filters: an OCI seccomp profile compiled to a classic BPF program (seccomp(2)).

One section an architecture; within it a binary search over intervals of call numbers that have the
same outcome, so that a call costs about nine comparisons. Numbers above the newest one that the profile
names answer ENOSYS where the default is an error, so that programs fall back instead of failing.
"""

import ctypes
import errno
import json
import os
import struct
from typing import Any

from barque.base.errors import InvalidInputError
from barque.kernel import libc

Json = dict[str, Any]
Condition = tuple[int, str, int, int]
Chain = tuple[tuple[tuple[Condition, ...], int], ...]

SECCOMP_SET_MODE_FILTER = 1
_MAX_INSTRUCTIONS = 4096
_X32_BIT = 0x40000000

# linux/audit.h: AUDIT_ARCH_*; the table of numbers that belongs to each.
_AUDIT = {
    "SCMP_ARCH_X86_64": (0xC000003E, "x86_64"),
    "SCMP_ARCH_X86": (0x40000003, "x86"),
    "SCMP_ARCH_X32": (0xC000003E, "x32"),
    "SCMP_ARCH_AARCH64": (0xC00000B7, "aarch64"),
    "SCMP_ARCH_RISCV64": (0xC00000F3, "riscv64"),
    "SCMP_ARCH_ARM": (0x40000028, "arm"),
}
# Their arguments have one word.
_NARROW = ("SCMP_ARCH_X86", "SCMP_ARCH_ARM")
# Numbers from here on are calls of ARM's own, apart from the common ones.
_ARM_PRIVATE = 0xF0000
# Architectures that exist but whose numbers we do not carry: their calls meet the default for strangers.
_FOREIGN = frozenset(
    ["SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64", "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PPC", "SCMP_ARCH_PPC64", "SCMP_ARCH_PPC64LE", "SCMP_ARCH_S390", "SCMP_ARCH_S390X", "SCMP_ARCH_PARISC", "SCMP_ARCH_PARISC64", "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K", "SCMP_ARCH_SH", "SCMP_ARCH_SHEB"]
)
_NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64", "riscv64": "SCMP_ARCH_RISCV64"}
ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
}
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
OPERATORS = ("SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT",
             "SCMP_CMP_MASKED_EQ")  # fmt: skip

_LD, _JA, _JEQ, _JGT, _JGE, _AND, _RET = 0x20, 0x05, 0x15, 0x25, 0x35, 0x54, 0x06
_OFF_NR, _OFF_ARCH, _OFF_ARGS = 0, 4, 16
_numbers: dict[str, dict[str, int]] = {}


def native_arch() -> str:
    """Return this machine's architecture in the words of a profile, empty where we do not carry it."""
    return _NATIVE.get(os.uname().machine, "")


def architectures() -> list[str]:
    """Return the architectures whose numbers we carry, in the words of a profile."""
    return list(_AUDIT)


def numbers(table: str) -> dict[str, int]:
    """Return the numbers of a table's calls by name."""
    if not _numbers:
        with open(os.path.join(os.path.dirname(__file__), "syscalls.json"), encoding="utf-8") as file:
            _numbers.update(json.load(file))
    return _numbers[table]


def _action(name: str, errno_value: int | None) -> int:
    if name not in ACTIONS:
        raise InvalidInputError(f"seccomp profile: unknown action {name!r}")
    value = ACTIONS[name]
    if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        number = errno.EPERM if errno_value is None else errno_value
        if not 0 <= number <= 0xFFFF:
            raise InvalidInputError(f"seccomp profile: errnoRet {number} is out of range")
        return value | number
    if errno_value:
        raise InvalidInputError(f"seccomp profile: errnoRet goes with SCMP_ACT_ERRNO and SCMP_ACT_TRACE, not {name}")
    return value


def _conditions(rule: Json) -> list[tuple[Condition, ...]]:
    """Return alternatives, each a conjunction; a second condition on one argument makes alternatives, as in runc."""
    found: list[Condition] = []
    for argument in rule.get("args") or []:
        index, operator = argument.get("index", 0), argument.get("op", "")
        if not 0 <= index <= 5:
            raise InvalidInputError(f"seccomp profile: argument index {index} is not from 0 to 5")
        if operator not in OPERATORS:
            raise InvalidInputError(f"seccomp profile: unknown operator {operator!r}")
        mask = 0xFFFFFFFFFFFFFFFF
        found.append((index, operator, argument.get("value", 0) & mask, argument.get("valueTwo", 0) & mask))
    if not found:
        return [()]
    if len({condition[0] for condition in found}) < len(found):
        return [(condition,) for condition in found]
    return [tuple(found)]


def _chains(profile: Json, table: dict[str, int], default: int) -> dict[int, Chain]:
    """Return for each named call number its (conditions, action) list; an empty condition ends it."""
    chains: dict[int, list[tuple[tuple[Condition, ...], int]]] = {}
    for rule in profile.get("syscalls") or []:
        action = _action(rule.get("action", ""), rule.get("errnoRet"))
        if action == default:
            continue
        alternatives = _conditions(rule)
        for name in rule.get("names") or []:
            number = table.get(name)
            if number is not None:
                chains.setdefault(number, []).extend((conditions, action) for conditions in alternatives)
    return {number: _ordered(chain) for number, chain in chains.items()}


def _ordered(chain: list[tuple[tuple[Condition, ...], int]]) -> Chain:
    """Put the unconditional outcome last; conditions that lead to the same are needless."""
    plain = next((action for conditions, action in chain if not conditions), None)
    kept = tuple(link for link in chain if link[0] and link[1] != plain)
    return kept if plain is None else (*kept, ((), plain))


def _op(code: int, k: int, jt: int = 0, jf: int = 0) -> bytes:
    return struct.pack("=HBBI", code, jt, jf, k & 0xFFFFFFFF)


def _count(code: bytes) -> int:
    return len(code) // 8


def _either(test: int, k: int, matched: bytes, other: bytes) -> bytes:
    """Return code that tests A and runs one of two blocks, both of which end in a return."""
    if _count(other) <= 255:
        return _op(test, k, _count(other), 0) + other + matched
    return _op(test, k, 0, 1) + _op(_JA, _count(other)) + other + matched


def _compare(condition: Condition, wide: bool, matched: bytes, other: bytes) -> bytes:
    """Return code that compares one argument and runs one of two blocks."""
    index, operator, value, second = condition
    low, high = value & 0xFFFFFFFF, value >> 32
    load_low, load_high = _op(_LD, _OFF_ARGS + 8 * index), _op(_LD, _OFF_ARGS + 8 * index + 4)
    if operator == "SCMP_CMP_MASKED_EQ":
        # value is the mask, valueTwo what must be left.
        want = second & value
        code = load_low + _op(_AND, low) + _either(_JEQ, want & 0xFFFFFFFF, matched, other)
        return load_high + _op(_AND, high) + _either(_JEQ, want >> 32, code, other) if wide else code
    if operator in ("SCMP_CMP_EQ", "SCMP_CMP_NE"):
        if operator == "SCMP_CMP_NE":
            matched, other = other, matched
        code = load_low + _either(_JEQ, low, matched, other)
        return load_high + _either(_JEQ, high, code, other) if wide else code
    if operator in ("SCMP_CMP_LT", "SCMP_CMP_LE"):
        matched, other = other, matched
    test = _JGT if operator in ("SCMP_CMP_GT", "SCMP_CMP_LE") else _JGE
    code = load_low + _either(test, low, matched, other)
    if not wide:
        return code
    return load_high + _either(_JGT, high, matched, _either(_JEQ, high, code, other))


def _leaf(chain: Chain, default: int, wide: bool) -> bytes:
    """Return the code of one outcome."""
    code = _op(_RET, default)
    for conditions, action in reversed(chain):
        block = _op(_RET, action)
        for condition in reversed(conditions):
            block = _compare(condition, wide, block, code)
        code = block
    return code


def _search(intervals: list[tuple[int, bytes]]) -> bytes:
    """Return a binary search over [(first number, code)], the call's number being in A."""
    if len(intervals) == 1:
        return intervals[0][1]
    middle = len(intervals) // 2
    return _either(_JGE, intervals[middle][0], _search(intervals[middle:]), _search(intervals[:middle]))


def _section(profile: Json, name: str, default: int, first: int) -> bytes:
    """Return the code for one table's numbers from `first` on, A holding the number."""
    table = numbers(_AUDIT[name][1])
    wide = name not in _NARROW
    chains = _chains(profile, table, default)
    named = [table[call] for rule in profile.get("syscalls") or [] for call in rule.get("names") or [] if call in table]
    plain = _op(_RET, default)
    intervals: list[tuple[int, bytes]] = [(first, plain)]
    for number in sorted(chains):
        code = _leaf(chains[number], default, wide)
        if intervals[-1][0] == number:
            intervals[-1] = (number, code)
        elif intervals[-1][1] != code:
            intervals.append((number, code))
        intervals.append((number + 1, plain))
    if named and default & 0xFFFF0000 == ACTIONS["SCMP_ACT_ERRNO"]:
        end = max((number for number in named if number < first + _ARM_PRIVATE), default=first) + 1
        above = [entry for entry in intervals if entry[0] >= first + _ARM_PRIVATE]
        intervals = [entry for entry in intervals if entry[0] < end]
        intervals.append((end, _op(_RET, ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS)))
        intervals += above
    merged: list[tuple[int, bytes]] = []
    for start, code in intervals:
        if merged and merged[-1][1] == code:
            continue
        merged.append((start, code))
    return _search(merged)


def compile_profile(profile: Json) -> bytes:
    """Return the BPF program (an array of struct sock_filter) of an OCI `linux.seccomp` object.

    Raises:
        InvalidInputError: an action, operator or architecture is unknown, or the program would be too long.
    """
    default = _action(profile.get("defaultAction", ""), profile.get("defaultErrnoRet"))
    names = list(dict.fromkeys([native_arch(), *(profile.get("architectures") or [])]))
    for name in names:
        if name and name not in _AUDIT and name not in _FOREIGN:
            raise InvalidInputError(f"seccomp profile: unknown architecture {name!r}")
    wanted = [name for name in names if name in _AUDIT]
    if not wanted:
        raise InvalidInputError(f"seccomp filters are not supported on {os.uname().machine}")
    load = _op(_LD, _OFF_NR)
    stranger = _op(_RET, ACTIONS["SCMP_ACT_KILL"])
    code = stranger
    sections: dict[int, bytes] = {}
    for name in wanted:
        if name == "SCMP_ARCH_X32":
            continue
        section = _section(profile, name, default, 0)
        if name == "SCMP_ARCH_X86_64":
            x32 = _section(profile, "SCMP_ARCH_X32", default, _X32_BIT) if "SCMP_ARCH_X32" in wanted else stranger
            section = _either(_JGE, _X32_BIT, x32, section)
        sections[_AUDIT[name][0]] = load + section
    for audit, section in reversed(sections.items()):
        code = _either(_JEQ, audit, section, code)
    program = _op(_LD, _OFF_ARCH) + code
    if _count(program) > _MAX_INSTRUCTIONS:
        raise InvalidInputError(f"seccomp profile: {_count(program)} instructions, the kernel takes {_MAX_INSTRUCTIONS}")
    return program


def unknown_calls(profile: Json) -> list[str]:
    """Return the names in a profile's rules that no architecture of ours has a call of."""
    known = set().union(*(numbers(table) for _, table in _AUDIT.values()))
    named = [name for rule in profile.get("syscalls") or [] for name in rule.get("names") or []]
    return [name for name in dict.fromkeys(named) if name not in known]


def flag_bits(names: list[str]) -> int:
    """Return the bits of a profile's flags.

    Raises:
        InvalidInputError: a flag is unknown.
    """
    bits = 0
    for name in names:
        if name not in FLAGS:
            raise InvalidInputError(f"seccomp profile: unknown flag {name!r}")
        bits |= FLAGS[name]
    return bits


class _Program(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def attach(program: bytes, flags: int = 0) -> int:
    """Install a compiled program for the calling thread; needs CAP_SYS_ADMIN or no_new_privs.

    Raises:
        KernelError: the kernel refused it.
    """
    code = ctypes.create_string_buffer(program, len(program))
    block = _Program(len(program) // 8, ctypes.addressof(code))
    return libc.invoke("seccomp", SECCOMP_SET_MODE_FILTER, flags, ctypes.addressof(block))
