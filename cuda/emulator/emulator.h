// Runs kernels on the host: each thread of a block is a fiber, blocks run one after another, and a seed decides the
// order in which fibers continue from one synchronisation (barrier, shuffle, vote) to the next. Memory ordering within
// a warp, bank conflicts and speed are not modelled.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>

namespace emulator {

struct Index {
    unsigned x, y, z;
};

struct Launch {
    unsigned blocks, threads;  // threads is a multiple of 32
    std::size_t dynamic_bytes;
    std::uint64_t seed;
};

// Runs a kernel to its end. Aborts with a message if threads wait for others that have ended.
void run(const Launch& launch, const std::function<void()>& kernel);

Index thread_index();
Index block_index();
Index block_size();
Index grid_size();

void barrier();
// Exchanges a value of every lane of the warp; the result is the value of lane `source`.
std::uint64_t exchange(std::uint64_t value, unsigned source);
unsigned lane();
// Memory of the block, one piece for each `site`. It is filled with ones (NaN as float) and freed with the block.
void* shared(const void* site, std::size_t bytes);
unsigned char* dynamic_shared();

}  // namespace emulator
