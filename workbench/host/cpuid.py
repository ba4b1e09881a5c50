"""The CPUID and XGETBV instructions, asked directly.

``/proc/cpuinfo`` is the kernel's view. An emulated CPU (``qemu-x86_64 -cpu Haswell``) sees the host's file but its own
CPUID, and the emulated one decides what runs. numpy knows too (``__cpu_features__``) but costs 25 MB and 80 ms.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import platform

_CPUID = bytes.fromhex(
    "53"  # push rbx
    "89f8"  # mov eax, edi        leaf
    "89f1"  # mov ecx, esi        subleaf
    "4989d0"  # mov r8, rdx       where the answer goes
    "0fa2"  # cpuid
    "418900"  # mov [r8], eax
    "41895804"  # mov [r8+4], ebx
    "41894808"  # mov [r8+8], ecx
    "4189500c"  # mov [r8+12], edx
    "5b"  # pop rbx
    "c3"  # ret
)
_XGETBV = bytes.fromhex(
    "31c9"  # xor ecx, ecx        XCR0
    "0f01d0"  # xgetbv
    "48c1e220"  # shl rdx, 32
    "4809d0"  # or rax, rdx
    "c3"  # ret
)
_XGETBV_AT = 64


class CpuId:
    """The two instructions as functions. OSError where this is no x86-64 or the kernel allows no executable page."""

    def __init__(self) -> None:
        if platform.machine() != "x86_64":
            raise OSError("CPUID is an instruction of x86-64")
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._page[: len(_CPUID)] = _CPUID
        self._page[_XGETBV_AT : _XGETBV_AT + len(_XGETBV)] = _XGETBV
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self._cpuid = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)(address)
        self._xgetbv = ctypes.CFUNCTYPE(ctypes.c_uint64)(address + _XGETBV_AT)

    def leaf(self, leaf: int, subleaf: int = 0) -> tuple[int, int, int, int]:
        """EAX, EBX, ECX, EDX of ``leaf``; zeros where the CPU does not have it (it would answer with another one's)."""
        answer = (ctypes.c_uint32 * 4)()
        self._cpuid(leaf & 0x8000_0000, 0, ctypes.byref(answer))
        if leaf > answer[0]:
            return 0, 0, 0, 0
        self._cpuid(leaf, subleaf, ctypes.byref(answer))
        return answer[0], answer[1], answer[2], answer[3]

    def xcr0(self) -> int:
        """The register states that the kernel saves (only to be asked where OSXSAVE is set)."""
        return int(self._xgetbv())


def features(cpu: CpuId) -> frozenset[str]:
    """What ``cpu`` can do, in the names of ``/proc/cpuinfo``, of what the x86-64 levels and int8 arithmetic ask for.

    AVX, AVX-512 and AMX count only where the kernel saves their registers (Intel SDM volume 1, chapters 13 and 14).
    """
    _, _, ecx1, _ = cpu.leaf(1)
    _, ebx7, ecx7, edx7 = cpu.leaf(7)
    eax71, *_ = cpu.leaf(7, 1)
    _, _, ecx81, _ = cpu.leaf(0x8000_0001)
    saved = cpu.xcr0() if ecx1 >> 27 & 1 else 0
    avx, avx512, amx = (saved & mask == mask for mask in (0x6, 0xE6, 0x60000))
    base = {"pni": 0, "ssse3": 9, "cx16": 13, "sse4_1": 19, "sse4_2": 20, "movbe": 22, "popcnt": 23}
    found = {name for name, bit in base.items() if ecx1 >> bit & 1}
    found |= {name for name, bit in {"lahf_lm": 0, "abm": 5}.items() if ecx81 >> bit & 1}
    found |= {name for name, bit in {"bmi1": 3, "bmi2": 8}.items() if ebx7 >> bit & 1}
    if avx:
        found |= {name for name, bit in {"fma": 12, "avx": 28, "f16c": 29}.items() if ecx1 >> bit & 1}
        found |= {"avx2"} if ebx7 >> 5 & 1 else set()
        found |= {"avx_vnni"} if eax71 >> 4 & 1 else set()
    if avx512:
        wide = {"avx512f": 16, "avx512dq": 17, "avx512cd": 28, "avx512bw": 30, "avx512vl": 31}
        found |= {name for name, bit in wide.items() if ebx7 >> bit & 1}
        found |= {"avx512_vnni"} if ecx7 >> 11 & 1 else set()
    if amx and edx7 >> 25 & 1:
        found.add("amx_int8")
    return frozenset(found)


def brand(cpu: CpuId) -> str:
    """The CPU's name for itself, or an empty string."""
    words = b"".join(
        register.to_bytes(4, "little")
        for leaf in (0x8000_0002, 0x8000_0003, 0x8000_0004)
        for register in cpu.leaf(leaf)
    )
    return " ".join(words.split(b"\0")[0].decode("ascii", "replace").split())


@functools.cache
def this_cpu() -> CpuId | None:
    """CPUID of this CPU, or None where it cannot be asked."""
    try:
        return CpuId()
    except OSError:
        return None
