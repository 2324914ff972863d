// A device that is not the CPU, for machines without a GPU: PyTorch's PrivateUse1 backend over host memory.
//
// Every operator falls back to the CPU's. What differs from the CPU is what differs on CUDA: a tensor there has another
// device, and an operator that is given tensors of both raises, or one and a CPU generator. As on CUDA, a 0-dimensional
// CPU tensor may take part anywhere, and index tensors may lie on the CPU. Streams, kernels, asynchrony and generators of
// the device's own are not modelled: without a generator it draws from the CPU's default one.
#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>

namespace {

using at::Tensor;
constexpr auto kDevice = c10::DeviceType::PrivateUse1;

// --- memory ---------------------------------------------------------------------------------------------------------

std::atomic<size_t> held{0}, peak{0}, limit{SIZE_MAX};

// Each block knows its size, so that what is held can be counted.
constexpr size_t kHeader = 64;

void release(void* data) {
  char* block = static_cast<char*>(data) - kHeader;
  held -= *reinterpret_cast<size_t*>(block);
  c10::GetCPUAllocator()->raw_deallocate(block);
}

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    TORCH_CHECK_WITH(OutOfMemoryError, held + bytes <= limit, "the pretend device is out of memory: ", bytes,
                     " bytes are asked for and ", held, " of ", limit, " are held");
    char* block = static_cast<char*>(c10::GetCPUAllocator()->raw_allocate(kHeader + bytes));
    *reinterpret_cast<size_t*>(block) = bytes;
    const size_t now = held += bytes;
    for (size_t seen = peak; now > seen && !peak.compare_exchange_weak(seen, now);) {
    }
    return {block + kHeader, block + kHeader, &release, c10::Device(kDevice, 0)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};

Memory memory;
REGISTER_ALLOCATOR(kDevice, &memory);

// --- one device, one stream, the CPU's random generator ---------------------------------------------------------------

struct Guard final : c10::impl::NoOpDeviceGuardImpl<kDevice> {
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  c10::Device getDevice() const override { return {kDevice, 0}; }
  c10::Device exchangeDevice(c10::Device) const override { return {kDevice, 0}; }
  c10::Stream getStream(c10::Device) const noexcept override { return stream(); }
  c10::Stream getDefaultStream(c10::Device) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return stream(); }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override {}
  static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, {kDevice, 0}); }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Hooks final : at::PrivateUse1HooksInterface {
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  void init() const override {}
  bool isPinnedPtr(const void*) const override { return false; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    static const at::Generator generator = at::detail::getDefaultCPUGenerator();
    return generator;
  }
  c10::Allocator* getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }
  c10::Device getDeviceFromPtr(void*) const override { return {kDevice, 0}; }
};

// --- operators ------------------------------------------------------------------------------------------------------

bool is_here(const Tensor& t) { return t.defined() && t.device().type() == kDevice; }

// The same memory as a CPU tensor.
Tensor on_host(const Tensor& t) {
  if (!is_here(t)) return t;
  auto* data = static_cast<char*>(t.storage().mutable_data()) + t.storage_offset() * t.element_size();
  return at::from_blob(data, t.sizes(), t.strides(), [t](void*) {}, t.options().device(at::kCPU));
}

Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
             std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  const c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_generic(size, &memory, keys, c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                     std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  const c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_strided_generic(size, stride, &memory, keys, c10::dtype_or_default(dtype));
}

Tensor copy_from(const Tensor& from, const Tensor& to, bool) {
  c10::impl::ExcludeDispatchKeyGuard no_autograd(c10::autograd_dispatch_keyset);
  on_host(to).copy_(on_host(from));
  return to;
}

Tensor copy_from_and_resize(const Tensor& from, const Tensor& to) {
  if (to.sizes() != from.sizes()) at::native::resize_(to, from.sizes(), std::nullopt);
  return copy_from(from, to, false);
}

at::Scalar item(const Tensor& t) { return on_host(t).item(); }

const Tensor& resize(const Tensor& t, c10::SymIntArrayRef size, std::optional<at::MemoryFormat> format) {
  return at::native::resize_(t, C10_AS_INTARRAYREF_SLOW(size), format);
}

Tensor& set_storage(Tensor& t, at::Storage storage, c10::SymInt offset, c10::SymIntArrayRef size,
                    c10::SymIntArrayRef stride) {
  auto* impl = t.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(storage));
  impl->set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), offset.expect_int());
  return t;
}

// CUDA takes these from the CPU too: indices, and both sides of a copy.
bool may_be_on_cpu(const std::string& op, size_t argument) {
  const bool indexing = op == "aten::index" || op == "aten::index_put_" || op == "aten::_index_put_impl_" ||
                        op == "aten::_unsafe_index" || op == "aten::index_put";
  return (indexing && argument == 1) || op == "aten::copy_" || op == "aten::_copy_from";
}

void on_the_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& name = op.schema().name();
  const auto arguments = torch::jit::last(stack, op.schema().arguments().size());
  bool here = false;
  bool drawn_on_cpu = false;
  std::optional<std::pair<size_t, Tensor>> elsewhere;
  const auto look = [&](size_t argument, const Tensor& t) {
    here |= is_here(t);
    if (t.defined() && !is_here(t) && t.dim() > 0 && !may_be_on_cpu(name, argument)) elsewhere = {argument, t};
  };
  for (size_t i = 0; i < arguments.size(); ++i) {
    const auto& value = arguments[i];
    if (value.isTensor()) look(i, value.toTensor());
    if (value.isTensorList())
      for (const Tensor& t : value.toTensorVector()) look(i, t);
    if (value.isOptionalTensorList())
      for (const auto& t : value.toOptionalTensorVector())
        if (t) look(i, *t);
    if (value.isGenerator()) drawn_on_cpu |= value.toGenerator().device().is_cpu();
  }
  TORCH_CHECK(!here || !elsewhere, "Expected all tensors to be on the same device, but argument ",
              elsewhere ? elsewhere->first : 0, " of ", name, " is on the CPU and others are not: its shape is ",
              elsewhere ? elsewhere->second.sizes() : at::IntArrayRef());
  TORCH_CHECK(!here || !drawn_on_cpu, "Expected a 'pretend' device type for generator but found 'cpu', in ", name);
  at::native::cpu_fallback(op, stack, /*error_on_views=*/false, c10::DispatchKey::CPU);
}

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&on_the_cpu>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  using Sizes = at::IntArrayRef;
  m.impl("empty.memory_format", TORCH_FN(empty));
  m.impl("empty_strided", TORCH_FN(empty_strided));
  m.impl("_copy_from", TORCH_FN(copy_from));
  m.impl("_copy_from_and_resize", TORCH_FN(copy_from_and_resize));
  m.impl("_local_scalar_dense", TORCH_FN(item));
  m.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  m.impl("view", TORCH_FN(static_cast<Tensor (*)(const Tensor&, Sizes)>(at::native::view)));
  m.impl("_reshape_alias",
         TORCH_FN(static_cast<Tensor (*)(const Tensor&, Sizes, Sizes)>(at::native::_reshape_alias)));
  m.impl("unfold", TORCH_FN(at::native::unfold));
  m.impl("resize_", TORCH_FN(resize));
  m.impl("set_.source_Storage_storage_offset", TORCH_FN(set_storage));
}

extern "C" {
void pretend_init() { at::RegisterPrivateUse1HooksInterface(new Hooks()); }
size_t pretend_held() { return held; }
void pretend_limit(size_t bytes) { limit = bytes; }
size_t pretend_peak() { return peak; }
void pretend_reset_peak() { peak = held.load(); }
}
