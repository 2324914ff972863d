// What the kernels need of a device beyond C++. `emulator/device.cuh` defines the same names for the host's compiler.
#pragma once

#define DEVICE __device__ __forceinline__
// A kernel that the driver finds by its plain name, for blocks of at most `threads` threads.
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)
// An uninitialised variable that the threads of a block share.
#define SHARED(type, name) __shared__ type name
// The shared memory whose size the launch sets, aligned to 16 bytes.
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]

#define INFINITE __int_as_float(0x7f800000)
#define NOT_A_NUMBER __int_as_float(0x7fc00000)

struct Half {
    unsigned short bits;
};
struct Bfloat16 {
    unsigned short bits;
};

DEVICE float widen(float value) { return value; }
DEVICE float widen(Half value) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
    return wide;
}
DEVICE float widen(Bfloat16 value) { return __uint_as_float(static_cast<unsigned>(value.bits) << 16); }

DEVICE void narrow(float value, float& narrowed) { narrowed = value; }
DEVICE void narrow(float value, Half& narrowed) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(narrowed.bits) : "f"(value)); }
DEVICE void narrow(float value, Bfloat16& narrowed) {
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(narrowed.bits) : "f"(value));
}
