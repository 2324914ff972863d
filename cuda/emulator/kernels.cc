// The source of the kernels, compiled by the host's compiler, and a table of them.
#include "kernels.h"

#include <map>
#include <tuple>
#include <utility>

#include "../sequence_cross_entropy.cu"

namespace emulator {
namespace {

template <auto kernel>
struct Invoker;

template <typename... Arguments, void (*kernel)(Arguments...)>
struct Invoker<kernel> {
    static void invoke(void** arguments) { call(arguments, std::index_sequence_for<Arguments...>()); }

    template <std::size_t... Places>
    static void call(void** arguments, std::index_sequence<Places...>) {
        kernel(*static_cast<Arguments*>(arguments[Places])...);
    }
};

#define OF_TYPE(suffix)                                                                                    \
    {"statistics_" #suffix, Invoker<statistics_##suffix>::invoke},                                         \
        {"fused_" #suffix, Invoker<fused_##suffix>::invoke}, {                                             \
        "fused_resident_" #suffix, Invoker<fused_resident_##suffix>::invoke                                \
    }

const std::map<std::string, Invoke> KERNELS = {
    OF_TYPE(float32),
    OF_TYPE(float16),
    OF_TYPE(bfloat16),
    {"kept_rows", Invoker<kept_rows>::invoke},
};

}  // namespace

Invoke find(const std::string& name) {
    const auto found = KERNELS.find(name);
    return found == KERNELS.end() ? nullptr : found->second;
}

}  // namespace emulator

// The entry for callers in other languages. Returns 0, or 1 if there is no such kernel.
extern "C" int emulate(const char* name, unsigned blocks, unsigned threads, std::size_t dynamic_bytes, std::uint64_t seed,
                       void** arguments) {
    const emulator::Invoke invoke = emulator::find(name);
    if (!invoke) return 1;
    emulator::run({blocks, threads, dynamic_bytes, seed}, [=] { invoke(arguments); });
    return 0;
}
