// The emulated kernels by name, with their arguments as the driver gets them.
#pragma once
#include <functional>
#include <string>

#include "emulator.h"

namespace emulator {

using Invoke = void (*)(void** arguments);

// Null where there is no kernel of that name.
Invoke find(const std::string& name);

}  // namespace emulator
