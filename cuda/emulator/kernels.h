// The emulated kernels by name. Their arguments have the form in which the driver gets them.
#pragma once
#include <functional>
#include <string>

#include "emulator.h"

namespace emulator {

using Invoke = void (*)(void** arguments);

// Null if there is no kernel of that name.
Invoke find(const std::string& name);

}  // namespace emulator
