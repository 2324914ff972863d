// The parts of the epilogue's kernels. A block works on one row x[0..V) of logits; z = scale·x, p = softmax(z). All
// sums are float32, and relative to the largest logit of the row.
#pragma once
#include <device.cuh>

typedef long long int64;

// The target of a row without cost and gradient.
constexpr int64 IGNORED = -100;
constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;
// Threads of a block that streams its row, and of a block that holds it in shared memory and so has an SM to itself.
constexpr int STREAMING = 512;
constexpr int RESIDENT = 1024;
// Packs that a thread has in flight: 32 kB with 1024 threads on an SM, about twice the share that an SM has of an
// H100's bandwidth (3.35 TB/s) times the latency of its memory (some 0.6 µs).
constexpr int BATCH = 2;
constexpr float LOG2_E = 1.4426950408889634f;
constexpr float LARGEST = 3.402823466e38f;

// 16 bytes of a row: the most that one instruction moves.
template <typename T>
struct alignas(16) Pack {
    static constexpr int SIZE = 16 / sizeof(T);
    T items[SIZE];
};

// The layout of a row: `head` items before the first 16-byte boundary, `packs` packs, then fewer items than a pack has.
template <typename T>
struct Layout {
    int head, packs, tail, length;

    DEVICE Layout(const T* row, int items) : length(items) {
        const int beyond = offset(row);
        head = beyond == 0 ? 0 : Pack<T>::SIZE - beyond;
        head = head < length ? head : length;
        packs = (length - head) / Pack<T>::SIZE;
        tail = head + packs * Pack<T>::SIZE;
    }

    // Items from the last 16-byte boundary to the first item of the row.
    static DEVICE int offset(const T* row) {
        return static_cast<int>(reinterpret_cast<unsigned long long>(row) % 16 / sizeof(T));
    }
};

// Σ e and Σ e·(x − maximum), where e = exp(scale·(x − maximum)), of the items seen so far; `rate` is scale·log₂e.
struct Sums {
    float maximum = -INFINITE, total = 0.0f, moment = 0.0f;

    template <int N>
    DEVICE void add(const float (&values)[N], float rate) {
        float largest = values[0];
#pragma unroll
        for (int i = 1; i < N; ++i) largest = fmaxf(largest, values[i]);
        if (largest > maximum) move(largest, rate);
        const float base = maximum == -INFINITE ? 0.0f : maximum;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const float distance = values[i] - base;
            const float e = exp2f(distance * rate);
            total += e;
            moment = fmaf(e, fmaxf(distance, -LARGEST), moment);  // 0·∞ would be NaN
        }
    }

    // Makes the sums relative to a larger maximum.
    DEVICE void move(float larger, float rate) {
        const float distance = fmaxf(maximum - larger, -LARGEST);
        const float shrink = exp2f(distance * rate);
        moment = shrink > 0.0f ? shrink * fmaf(total, distance, moment) : 0.0f;
        total *= shrink;
        maximum = larger;
    }

    // The sums of all lanes of a warp, in each of them.
    DEVICE void join_warp(float rate) {
        float largest = maximum;
        for (int step = WARP / 2; step > 0; step /= 2) {
            largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, step));
        }
        if (largest > maximum) move(largest, rate);
        for (int step = WARP / 2; step > 0; step /= 2) {
            total += __shfl_xor_sync(ALL_LANES, total, step);
            moment += __shfl_xor_sync(ALL_LANES, moment, step);
        }
    }
};

struct Partials {
    float maximum[WARP], total[WARP], moment[WARP];
};

// The sums of all threads of a block, in each of them. `partials` may hold nothing else in this block.
DEVICE Sums join_block(Sums sums, float rate, Partials& partials) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    sums.join_warp(rate);
    if (lane == 0) {
        partials.maximum[warp] = sums.maximum;
        partials.total[warp] = sums.total;
        partials.moment[warp] = sums.moment;
    }
    __syncthreads();
    Sums all;
    if (lane < warps) {
        all.maximum = partials.maximum[lane];
        all.total = partials.total[lane];
        all.moment = partials.moment[lane];
    }
    all.join_warp(rate);
    return all;
}

// Adds COUNT packs, a block's width apart, to the sums; with KEEP copies them to `kept`.
template <int COUNT, bool KEEP, typename T>
DEVICE void read_packs(const Pack<T>* body, Pack<T>* kept, int first, float rate, Sums& sums) {
    Pack<T> loaded[COUNT];
    float values[COUNT * Pack<T>::SIZE];
#pragma unroll
    for (int i = 0; i < COUNT; ++i) loaded[i] = body[first + i * static_cast<int>(blockDim.x)];
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
        if (KEEP) kept[first + i * static_cast<int>(blockDim.x)] = loaded[i];
#pragma unroll
        for (int j = 0; j < Pack<T>::SIZE; ++j) values[i * Pack<T>::SIZE + j] = widen(loaded[i].items[j]);
    }
    sums.add(values, rate);
}

// The sums of the items that this thread reads of a row. With KEEP it copies them to `kept`, aligned like the row.
template <bool KEEP, typename T>
DEVICE Sums read(const T* row, const Layout<T>& layout, float rate, T* kept) {
    const int thread = threadIdx.x, threads = blockDim.x;
    const Pack<T>* body = reinterpret_cast<const Pack<T>*>(row + layout.head);
    Pack<T>* kept_body = KEEP ? reinterpret_cast<Pack<T>*>(kept + layout.head) : nullptr;
    Sums sums;
    const auto single = [&](int index) {
        const T item = row[index];
        if (KEEP) kept[index] = item;
        const float value[1] = {widen(item)};
        sums.add(value, rate);
    };
#pragma unroll 1
    for (int index = thread; index < layout.head; index += threads) single(index);
    int first = thread;
#pragma unroll 1
    for (; first + (BATCH - 1) * threads < layout.packs; first += BATCH * threads) {
        read_packs<BATCH, KEEP>(body, kept_body, first, rate, sums);
    }
#pragma unroll 1
    for (; first < layout.packs; first += threads) read_packs<1, KEEP>(body, kept_body, first, rate, sums);
#pragma unroll 1
    for (int index = layout.tail + thread; index < layout.length; index += threads) single(index);
    return sums;
}

// Rewrites COUNT packs, a block's width apart, downwards from `last`; `head` is the index of the first item of pack 0.
template <int COUNT, typename T, typename Derivative>
DEVICE void rewrite_packs(Pack<T>* to, const Pack<T>* from, int last, int head, Derivative derivative) {
    Pack<T> loaded[COUNT];
#pragma unroll
    for (int i = 0; i < COUNT; ++i) loaded[i] = from[last - i * static_cast<int>(blockDim.x)];
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
        const int pack = last - i * static_cast<int>(blockDim.x);
#pragma unroll
        for (int j = 0; j < Pack<T>::SIZE; ++j) {
            const int index = head + pack * Pack<T>::SIZE + j;
            narrow(derivative(widen(loaded[i].items[j]), index), loaded[i].items[j]);
        }
        to[pack] = loaded[i];
    }
}

// Overwrites each item of a row with derivative(x, index), from its end to its start. x comes from `source`, which is
// the row itself or a copy aligned like it.
template <typename T, typename Derivative>
DEVICE void rewrite(T* row, const T* source, const Layout<T>& layout, Derivative derivative) {
    const int thread = threadIdx.x, threads = blockDim.x;
    Pack<T>* to = reinterpret_cast<Pack<T>*>(row + layout.head);
    const Pack<T>* from = reinterpret_cast<const Pack<T>*>(source + layout.head);
    const auto single = [&](int index) { narrow(derivative(widen(source[index]), index), row[index]); };
#pragma unroll 1
    for (int index = layout.tail + thread; index < layout.length; index += threads) single(index);
    int last = layout.packs - 1 - thread;
#pragma unroll 1
    for (; last - (BATCH - 1) * threads >= 0; last -= BATCH * threads) {
        rewrite_packs<BATCH>(to, from, last, layout.head, derivative);
    }
#pragma unroll 1
    for (; last >= 0; last -= threads) rewrite_packs<1>(to, from, last, layout.head, derivative);
#pragma unroll 1
    for (int index = thread; index < layout.head; index += threads) single(index);
}
