// A stand-in for the CUDA driver's library on machines without a device. It has the entry points that refinerl uses,
// takes host memory as the device's, and runs launches on the emulator. The tests build it as libcuda.so.1. It is as
// strict as the real one: a context must be current, an image must be for the device, a launch must be within the
// device's limits.
//
// The environment describes the device and its faults:
//   STANDIN_DEVICES=1  STANDIN_VERSION=12090  STANDIN_CAPABILITY=8.6  STANDIN_SHARED=101376 (bytes that a block can have)
//   STANDIN_FAULT=cuLaunchKernel:700 (that entry point returns that status)  STANDIN_LOG=file (one line per launch)
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "kernels.h"

namespace {

constexpr int OK = 0, INVALID_VALUE = 1, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
              NO_BINARY_FOR_GPU = 209, INVALID_PTX = 218, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700;
constexpr unsigned DEFAULT_SHARED = 48 * 1024;
constexpr int MAX_DYNAMIC_SHARED = 8;

struct Function {
    std::string name;
    emulator::Invoke invoke;
    unsigned dynamic_shared;
};

char context, module;
bool initialised = false;
int pushed = 0;
std::map<std::string, Function> functions;
std::uint64_t launches = 0;

std::string setting(const char* name, const char* otherwise) {
    const char* value = std::getenv(name);
    return value ? value : otherwise;
}

int number(const char* name, const char* otherwise) { return std::atoi(setting(name, otherwise).c_str()); }

unsigned capability() {
    const std::string text = setting("STANDIN_CAPABILITY", "8.6");
    return static_cast<unsigned>(10 * std::atoi(text.c_str()) + std::atoi(text.c_str() + text.find('.') + 1));
}

// The status that the environment sets for an entry point.
int fault(const char* entry) {
    const std::string text = setting("STANDIN_FAULT", "");
    const std::string prefix = std::string(entry) + ":";
    return text.rfind(prefix, 0) == 0 ? std::atoi(text.c_str() + prefix.size()) : OK;
}

// The architecture of a cubin, read from its ELF flags.
unsigned architecture(const unsigned char* image) {
    std::uint32_t flags;
    std::memcpy(&flags, image + 48, sizeof flags);
    return image[8] < 8 ? flags & 0xff : flags >> 8 & 0xff;
}

}  // namespace

#define ENTRY(name, ...)                       \
    extern "C" int name(__VA_ARGS__) {         \
        if (int status = fault(#name)) return status;

ENTRY(cuInit, unsigned flags)
    if (flags != 0) return INVALID_VALUE;
    if (number("STANDIN_DEVICES", "1") == 0) return NO_DEVICE;
    initialised = true;
    return OK;
}

ENTRY(cuDriverGetVersion, int* version)
    *version = number("STANDIN_VERSION", "12090");
    return OK;
}

extern "C" int cuGetErrorName(int status, const char** text) {
    static const std::map<int, const char*> NAMES = {
        {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},        {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
        {NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU"}, {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
        {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},                {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"},
        {INVALID_PTX, "CUDA_ERROR_INVALID_PTX"}};
    const auto found = NAMES.find(status);
    *text = found == NAMES.end() ? nullptr : found->second;
    return found == NAMES.end() ? INVALID_VALUE : OK;
}

extern "C" int cuGetErrorString(int status, const char** text) {
    static thread_local std::string words;
    words = "the stand-in's status " + std::to_string(status);
    *text = words.c_str();
    return OK;
}

ENTRY(cuDeviceGetCount, int* count)
    if (!initialised) return NOT_INITIALIZED;
    *count = number("STANDIN_DEVICES", "1");
    return OK;
}

ENTRY(cuDeviceGet, int* device, int ordinal)
    if (!initialised) return NOT_INITIALIZED;
    if (ordinal < 0 || ordinal >= number("STANDIN_DEVICES", "1")) return INVALID_DEVICE;
    *device = ordinal;
    return OK;
}

ENTRY(cuDeviceGetAttribute, int* value, int which, int)
    switch (which) {
        case 75: *value = static_cast<int>(capability() / 10); return OK;
        case 76: *value = static_cast<int>(capability() % 10); return OK;
        case 97: *value = number("STANDIN_SHARED", "101376"); return OK;
        default: return INVALID_VALUE;
    }
}

ENTRY(cuDevicePrimaryCtxRetain, void** handle, int)
    *handle = &context;
    return OK;
}

ENTRY(cuCtxPushCurrent_v2, void* handle)
    if (handle != &context) return INVALID_CONTEXT;
    ++pushed;
    return OK;
}

ENTRY(cuCtxPopCurrent_v2, void** handle)
    if (pushed == 0) return INVALID_CONTEXT;
    --pushed;
    *handle = &context;
    return OK;
}

ENTRY(cuModuleLoadDataEx, void** handle, const void* image, unsigned options, int*, void**)
    if (pushed == 0) return INVALID_CONTEXT;
    if (options != 0 || reinterpret_cast<std::uintptr_t>(image) % 8 != 0) return INVALID_VALUE;
    const unsigned char* bytes = static_cast<const unsigned char*>(image);
    if (std::memcmp(bytes, "\x7f" "ELF", 4) == 0) {
        const unsigned found = architecture(bytes);
        if (found / 10 != capability() / 10 || found > capability()) return NO_BINARY_FOR_GPU;
    } else {
        const char* target = std::strstr(static_cast<const char*>(image), ".target sm_");
        if (!target) return INVALID_PTX;
        if (static_cast<unsigned>(std::atoi(target + 11)) > capability()) return NO_BINARY_FOR_GPU;
    }
    *handle = &module;
    return OK;
}

ENTRY(cuModuleGetFunction, void** handle, void* from, const char* name)
    if (pushed == 0 || from != &module) return INVALID_CONTEXT;
    const emulator::Invoke invoke = emulator::find(name);
    if (!invoke) return NOT_FOUND;
    *handle = &functions.try_emplace(name, Function{name, invoke, DEFAULT_SHARED}).first->second;
    return OK;
}

ENTRY(cuFuncSetAttribute, void* handle, int attribute, int value)
    if (attribute != MAX_DYNAMIC_SHARED || value > number("STANDIN_SHARED", "101376")) return INVALID_VALUE;
    static_cast<Function*>(handle)->dynamic_shared = static_cast<unsigned>(value);
    return OK;
}

ENTRY(cuLaunchKernel, void* handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
      unsigned block_z, unsigned shared, void* stream, void** arguments, void** extra)
    if (pushed == 0) return INVALID_CONTEXT;
    const Function& function = *static_cast<Function*>(handle);
    const bool shape = grid_x > 0 && grid_y == 1 && grid_z == 1 && block_x > 0 && block_x <= 1024 && block_y == 1 && block_z == 1;
    if (!shape || shared > function.dynamic_shared || extra != nullptr) return INVALID_VALUE;
    emulator::run({grid_x, block_x, shared, launches++}, [&] { function.invoke(arguments); });
    const std::string log = setting("STANDIN_LOG", "");
    if (std::FILE* file = log.empty() ? nullptr : std::fopen(log.c_str(), "a")) {
        std::fprintf(file, "%s %u %u %u %llu\n", function.name.c_str(), grid_x, block_x, shared,
                     static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(stream)));
        std::fclose(file);
    }
    return OK;
}
