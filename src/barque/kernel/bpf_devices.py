"""The device filter of version 2 cgroups: an eBPF program of type CGROUP_DEVICE.

The program sees `struct bpf_cgroup_dev_ctx` (linux/bpf.h): access_type (low half: 1 block, 2 char;
high half: 1 mknod, 2 read, 4 write), major, minor; it returns 1 to allow. OCI rules are a list in
which a later rule wins, so they are tested from the last to the first; what no rule names is refused.
"""

import ctypes
import errno
import struct
from typing import Any

from barque.base.errors import KernelError
from barque.kernel import libc

BPF_PROG_LOAD, BPF_PROG_ATTACH, BPF_PROG_DETACH, BPF_PROG_QUERY, BPF_PROG_GET_FD_BY_ID = 5, 8, 9, 16, 13
BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 2

_LDX_W, _ALU_AND, _ALU_RSH, _MOV_REG, _MOV_IMM = 0x61, 0x54, 0x74, 0xBC, 0xB4
_JNE_IMM, _JNE_REG, _JA, _EXIT = 0x55, 0x5D, 0x05, 0x95
_ACCESS = {"m": 1, "r": 2, "w": 4}
_TYPE = {"b": 1, "c": 2, "u": 2, "p": 2}

Rule = dict[str, Any]


def _instruction(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("=BBhi", code, dst | src << 4, off, imm)


def _block(rule: Rule) -> bytes:
    """Return the instructions of one rule: fall through to the next block where it does not match."""
    access = sum(_ACCESS[letter] for letter in set(rule.get("access") or "rwm"))
    allow = bool(rule.get("allow"))
    tests: list[bytes] = []
    kind = rule.get("type") or "a"
    if kind != "a":
        tests.append(_instruction(_JNE_IMM, dst=2, imm=_TYPE[kind]))
    if access != 7:
        # r1 = what is asked for and this rule names; an allowing rule must name all of it, a denying one any.
        tests.append(_instruction(_MOV_REG, dst=1, src=3))
        tests.append(_instruction(_ALU_AND, dst=1, imm=access))
        tests.append(_instruction(_JNE_REG, dst=1, src=3) if allow else _instruction(0x15, dst=1, imm=0))
    for register, number in ((4, rule.get("major")), (5, rule.get("minor"))):
        if number is not None and number >= 0:
            tests.append(_instruction(_JNE_IMM, dst=register, imm=number))
    verdict = [_instruction(_MOV_IMM, dst=0, imm=int(allow)), _instruction(_EXIT)]
    code = tests + verdict
    jumps = {_JNE_IMM, _JNE_REG, 0x15}
    for index, one in enumerate(tests):
        if one[0] in jumps:
            opcode, registers, _, imm = struct.unpack("=BBhi", one)
            code[index] = struct.pack("=BBhi", opcode, registers, len(code) - index - 1, imm)
    return b"".join(code)


def compile_rules(rules: list[Rule]) -> bytes:
    """Return the program for OCI device rules (type, major, minor, access, allow)."""
    program = [
        _instruction(_LDX_W, dst=2, src=1, off=0),
        _instruction(_MOV_REG, dst=3, src=2),
        _instruction(_ALU_AND, dst=2, imm=0xFFFF),
        _instruction(_ALU_RSH, dst=3, imm=16),
        _instruction(_LDX_W, dst=4, src=1, off=4),
        _instruction(_LDX_W, dst=5, src=1, off=8),
    ]
    for rule in reversed(rules):
        program.append(_block(rule))
        everything = (rule.get("type") or "a") == "a" and set(rule.get("access") or "rwm") == set("rwm")
        if everything and rule.get("major") in (None, -1) and rule.get("minor") in (None, -1):
            return b"".join(program)
    program.append(_instruction(_MOV_IMM, dst=0, imm=0) + _instruction(_EXIT))
    return b"".join(program)


def _bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    result = libc.invoke("bpf", command, ctypes.addressof(buffer), 128)
    return result, buffer.raw


def load(program: bytes) -> int:
    """Load a device program; the descriptor is the caller's.

    Raises:
        KernelError: the verifier refused it, or bpf(2) is not allowed.
    """
    code = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    attributes = struct.pack(
        "=IIQQIIQ", BPF_PROG_TYPE_CGROUP_DEVICE, len(program) // 8, ctypes.addressof(code),
        ctypes.addressof(licence), 0, 0, 0,
    )  # fmt: skip
    return _bpf(BPF_PROG_LOAD, attributes)[0]


def _attached(cgroup_fd: int) -> list[int]:
    ids = (ctypes.c_uint32 * 64)()
    attributes = struct.pack("=IIIIQI", cgroup_fd, BPF_CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), 64)
    try:
        _, answer = _bpf(BPF_PROG_QUERY, attributes)
    except KernelError as error:
        if error.errno == errno.EINVAL:
            return []
        raise
    count = struct.unpack_from("=I", answer, 24)[0]
    return [ids[index] for index in range(count)]


def replace(cgroup_fd: int, program: bytes) -> None:
    """Make program the one device filter of a cgroup; the old ones go after the new one is in place.

    Raises:
        KernelError: the kernel refused the program.
    """
    import os

    old = _attached(cgroup_fd)
    fd = load(program)
    try:
        _bpf(BPF_PROG_ATTACH, struct.pack("=IIII", cgroup_fd, fd, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI))
    finally:
        os.close(fd)
    for identifier in old:
        stale = _bpf(BPF_PROG_GET_FD_BY_ID, struct.pack("=III", identifier, 0, 0))[0]
        try:
            _bpf(BPF_PROG_DETACH, struct.pack("=IIII", cgroup_fd, stale, BPF_CGROUP_DEVICE, 0))
        finally:
            os.close(stale)
