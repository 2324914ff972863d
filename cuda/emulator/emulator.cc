#include "emulator.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <setjmp.h>
#include <ucontext.h>
#include <utility>
#include <vector>

#ifdef EMULATOR_ADDRESS
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef EMULATOR_THREAD
#include <sanitizer/tsan_interface.h>
#endif

// This file is compiled without instrumentation, so that the sanitizers see only the memory accesses of the kernels.
namespace emulator {
namespace {

constexpr unsigned WARP = 32;
constexpr std::size_t STACK = 64 * 1024;

struct Warp {
    unsigned arrived = 0;
    unsigned long phase = 0;
    std::uint64_t values[2][WARP];  // of this exchange and of the last one, which slower lanes may still read
};

enum class Wait { nothing, warp, block, left };

struct Fiber {
    ucontext_t context;
    jmp_buf jump;
    bool started = false;
    Wait wait = Wait::nothing;
    unsigned long phase = 0;  // the phase whose end it waits for
    unsigned thread = 0;
    std::unique_ptr<char[]> stack;
#ifdef EMULATOR_ADDRESS
    void* fake_stack = nullptr;
#endif
#ifdef EMULATOR_THREAD
    void* handle = nullptr;
#endif
};

struct Piece {
    const void* site;
    void* memory;
};

struct Block {
    Launch launch;
    unsigned index = 0;
    const std::function<void()>* kernel = nullptr;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::vector<Piece> pieces;
    unsigned arrived = 0;
    unsigned long phase = 0;
    Fiber scheduler;
    Fiber* running = nullptr;
    char start_and_end = 0, barriers[2] = {0, 0};  // addresses that stand for an order of events
};

thread_local Block* block = nullptr;

void happens_before(char* event) {
#ifdef EMULATOR_THREAD
    __tsan_release(event);
#else
    (void)event;
#endif
}

void happens_after(char* event) {
#ifdef EMULATOR_THREAD
    __tsan_acquire(event);
#else
    (void)event;
#endif
}

[[noreturn]] void fail(const char* message) {
    std::fprintf(stderr, "emulator: block %u, thread %u: %s\n", block->index, block->running ? block->running->thread : 0,
                 message);
    std::abort();
}

// Sanitizers follow swapcontext with the help of annotations. Without sanitizers a long jump avoids its system call.
void change(Fiber& from, Fiber& to) {
#if defined(EMULATOR_ADDRESS)
    __sanitizer_start_switch_fiber(from.wait == Wait::left ? nullptr : &from.fake_stack,
                                   to.stack ? to.stack.get() : static_cast<char*>(to.context.uc_stack.ss_sp),
                                   to.stack ? STACK : to.context.uc_stack.ss_size);
    swapcontext(&from.context, &to.context);
    __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#elif defined(EMULATOR_THREAD)
    __tsan_switch_to_fiber(to.handle, __tsan_switch_to_fiber_no_sync);
    swapcontext(&from.context, &to.context);
#else
    if (_setjmp(from.jump) != 0) return;
    if (to.started) _longjmp(to.jump, 1);
    to.started = true;
    setcontext(&to.context);
#endif
}

void body() {
#ifdef EMULATOR_ADDRESS
    // The scheduler runs on the thread's own stack, whose bounds only the sanitizer knows.
    const void* bottom = nullptr;
    std::size_t size = 0;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
    if (!block->scheduler.context.uc_stack.ss_sp) {
        block->scheduler.context.uc_stack.ss_sp = const_cast<void*>(bottom);
        block->scheduler.context.uc_stack.ss_size = size;
    }
#endif
    happens_after(&block->start_and_end);
    (*block->kernel)();
    happens_before(&block->start_and_end);
    block->running->wait = Wait::left;
    change(*block->running, block->scheduler);
}

void wait(Wait what, unsigned long phase) {
    Fiber& self = *block->running;
    self.wait = what;
    self.phase = phase;
    change(self, block->scheduler);
}

bool ready(const Fiber& fiber) {
    switch (fiber.wait) {
        case Wait::nothing: return true;
        case Wait::warp: return block->warps[fiber.thread / WARP].phase != fiber.phase;
        case Wait::block: return block->phase != fiber.phase;
        default: return false;
    }
}

void start(Fiber& fiber, unsigned thread) {
    if (!fiber.stack) fiber.stack = std::make_unique<char[]>(STACK);
#ifdef EMULATOR_ADDRESS
    __asan_unpoison_memory_region(fiber.stack.get(), STACK);  // after the frames of the last block
#endif
    fiber.thread = thread;
    fiber.started = false;
    fiber.wait = Wait::nothing;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, body, 0);
}

// Lets one warp after another take a step, in random order within and among them. A warp often continues alone for
// long, so that a warp which does not wait for the others gets far ahead of them.
void schedule(std::mt19937_64& random) {
    std::vector<Fiber*> turn;
    const unsigned count = static_cast<unsigned>(block->warps.size());
    unsigned warp = 0;
    for (;;) {
        if (random() % 8 == 0 || turn.empty()) warp = static_cast<unsigned>(random() % count);
        turn.clear();
        for (unsigned tried = 0; tried < count && turn.empty(); ++tried, warp = turn.empty() ? (warp + 1) % count : warp) {
            for (unsigned lane = 0; lane < WARP; ++lane) {
                Fiber& fiber = block->fibers[warp * WARP + lane];
                if (ready(fiber)) turn.push_back(&fiber);
            }
        }
        if (turn.empty()) break;
        std::shuffle(turn.begin(), turn.end(), random);
        for (Fiber* fiber : turn) {
            fiber->wait = Wait::nothing;
            block->running = fiber;
            change(block->scheduler, *fiber);
        }
    }
    for (Fiber& fiber : block->fibers) {
        block->running = &fiber;
        if (fiber.wait != Wait::left) fail("waits at a barrier, shuffle or vote that other threads left out");
    }
}

}  // namespace

void run(const Launch& launch, const std::function<void()>& kernel) {
    Block own;
    block = &own;
    own.launch = launch;
    own.kernel = &kernel;
    if (launch.threads == 0 || launch.threads % WARP != 0 || launch.threads > 1024) fail("a block has whole warps, up to 32");
    own.fibers = std::vector<Fiber>(launch.threads);
    std::mt19937_64 random(launch.seed);
#ifdef EMULATOR_THREAD
    own.scheduler.handle = __tsan_get_current_fiber();
    for (Fiber& fiber : own.fibers) fiber.handle = __tsan_create_fiber(0);
#endif
    own.scheduler.started = true;
    for (own.index = 0; own.index < launch.blocks; ++own.index) {
        own.warps.assign(launch.threads / WARP, Warp());
        own.arrived = 0;
        shared(&own, launch.dynamic_bytes);
        for (unsigned thread = 0; thread < launch.threads; ++thread) start(own.fibers[thread], thread);
        happens_before(&own.start_and_end);
        schedule(random);
        happens_after(&own.start_and_end);
        for (const Piece& piece : own.pieces) std::free(piece.memory);
        own.pieces.clear();
    }
#ifdef EMULATOR_THREAD
    for (Fiber& fiber : own.fibers) __tsan_destroy_fiber(fiber.handle);
#endif
    block = nullptr;
}

Index thread_index() { return {block->running->thread, 0, 0}; }
Index block_index() { return {block->index, 0, 0}; }
Index block_size() { return {block->launch.threads, 1, 1}; }
Index grid_size() { return {block->launch.blocks, 1, 1}; }
unsigned lane() { return block->running->thread % WARP; }

void barrier() {
    const unsigned long phase = block->phase;
    char* event = &block->barriers[phase % 2];
    happens_before(event);
    if (++block->arrived == block->launch.threads) {
        block->arrived = 0;
        ++block->phase;
    }
    wait(Wait::block, phase);
    happens_after(event);
}

std::uint64_t exchange(std::uint64_t value, unsigned source) {
    Warp& warp = block->warps[block->running->thread / WARP];
    const unsigned long phase = warp.phase;
    std::uint64_t* values = warp.values[phase % 2];
    values[lane()] = value;
    if (++warp.arrived == WARP) {
        warp.arrived = 0;
        ++warp.phase;
    }
    wait(Wait::warp, phase);
    return values[source];
}

void* shared(const void* site, std::size_t bytes) {
    for (const Piece& piece : block->pieces) {
        if (piece.site != site) continue;
        happens_after(static_cast<char*>(piece.memory));
        return piece.memory;
    }
    // malloc, not new: the sanitizer checks its bounds, and a kernel may rely on 16-byte alignment and no more.
    void* memory = std::malloc(bytes);
    std::memset(memory, 0xff, bytes);
    block->pieces.push_back({site, memory});
    happens_before(static_cast<char*>(memory));
    return memory;
}

unsigned char* dynamic_shared() { return static_cast<unsigned char*>(shared(block, 0)); }

}  // namespace emulator
