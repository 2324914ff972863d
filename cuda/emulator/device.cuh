// The host's counterpart of cuda/device.cuh: the same names on top of the emulator.
#pragma once
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "emulator.h"

#define DEVICE inline
#define KERNEL(threads) extern "C" void
#define SHARED(type, name)     \
    static char name##_site;   \
    type& name = *static_cast<type*>(emulator::shared(&name##_site, sizeof(type)))
#define DYNAMIC_SHARED(name) unsigned char* const name = emulator::dynamic_shared()
#define INFINITE std::numeric_limits<float>::infinity()
#define NOT_A_NUMBER std::numeric_limits<float>::quiet_NaN()

#define threadIdx (emulator::thread_index())
#define blockIdx (emulator::block_index())
#define blockDim (emulator::block_size())
#define gridDim (emulator::grid_size())

inline void __syncthreads() { emulator::barrier(); }
inline float __shfl_xor_sync(unsigned, float value, int mask) {
    const std::uint64_t got = emulator::exchange(std::bit_cast<std::uint32_t>(value), emulator::lane() ^ mask);
    return std::bit_cast<float>(static_cast<std::uint32_t>(got));
}
inline unsigned __ballot_sync(unsigned, bool vote) {
    unsigned votes = 0;
    for (unsigned lane = 0; lane < 32; ++lane) votes |= static_cast<unsigned>(emulator::exchange(vote, lane)) << lane;
    return votes;
}
inline int __popc(unsigned bits) { return std::popcount(bits); }

struct Half {
    unsigned short bits;
};
struct Bfloat16 {
    unsigned short bits;
};

inline float widen(float value) { return value; }
inline float widen(Half value) {
    const unsigned sign = (value.bits & 0x8000u) << 16, exponent = value.bits >> 10 & 31, fraction = value.bits & 1023;
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | fraction << 13);
    if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
    const float magnitude = std::ldexp(static_cast<float>(fraction), -24);
    return sign ? -magnitude : magnitude;
}
inline float widen(Bfloat16 value) { return std::bit_cast<float>(static_cast<unsigned>(value.bits) << 16); }

inline void narrow(float value, float& narrowed) { narrowed = value; }
inline void narrow(float value, Half& narrowed) {
    const unsigned sign = std::bit_cast<unsigned>(value) >> 16 & 0x8000u;
    const float magnitude = std::fabs(value);
    unsigned bits;
    if (std::isnan(value)) {
        bits = 0x7fff;
    } else if (magnitude >= 65520.0f) {
        bits = 0x7c00;
    } else if (magnitude < 0x1p-14f) {
        bits = static_cast<unsigned>(std::nearbyint(std::ldexp(magnitude, 24)));  // ties to even, the default mode
    } else {
        const unsigned wide = std::bit_cast<unsigned>(magnitude);
        bits = (wide + 0xfff + (wide >> 13 & 1)) / 0x2000 - (112u << 10);
    }
    narrowed.bits = static_cast<unsigned short>(sign | bits);
}
inline void narrow(float value, Bfloat16& narrowed) {
    const unsigned wide = std::bit_cast<unsigned>(value);
    const unsigned rounded = std::isnan(value) ? 0x7fffu : (wide + 0x7fff + (wide >> 16 & 1)) >> 16;
    narrowed.bits = static_cast<unsigned short>(rounded);
}
