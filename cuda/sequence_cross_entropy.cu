// The kernels around the GEMMs of fused sequence cross-entropy. The logits are [rows, length] with `stride` items from
// row to row, at any alignment that their type allows. Each row takes one block. Nothing here allocates or
// synchronises.
//
// For a row with target t, in nats: nll = log Σ exp(z) − z[t], entropy = −Σ p·log p. A target of −100 makes all results
// of the row zero. Any other target outside [0, length) makes them NaN, and nothing is read out of bounds.
#include "sequence_cross_entropy.cuh"

// The results of a row, the same in each thread.
struct Summary {
    float maximum, total, log_total, entropy;

    DEVICE Summary(const Sums& sums, float scale)
        : maximum(sums.maximum), total(sums.total), log_total(logf(sums.total)) {
        entropy = log_total - scale * (sums.moment / sums.total);
    }
    DEVICE float nll(float target_logit, float scale) const { return (maximum - target_logit) * scale + log_total; }
};

DEVICE bool inside(int64 target, int length) { return target >= 0 && target < length; }

// The logit of the target in the thread that reports; NaN in the others, and if there is none.
template <typename T>
DEVICE float target_logit(const T* row, int64 target, int length) {
    return threadIdx.x == 0 && inside(target, length) ? widen(row[target]) : NOT_A_NUMBER;
}

template <typename T>
DEVICE void fill_zero(T* row, int length) {
#pragma unroll 1
    for (int index = threadIdx.x; index < length; index += blockDim.x) narrow(0.0f, row[index]);
}

template <typename T>
DEVICE void statistics(const T* logits, int64 stride, int length, const int64* targets, float scale, float* nll,
                       float* entropy) {
    SHARED(Partials, partials);
    const int64 index = blockIdx.x;
    const T* row = logits + index * stride;
    const int64 target = targets[index];
    if (target == IGNORED) {
        if (threadIdx.x == 0) nll[index] = entropy[index] = 0.0f;
        return;
    }
    const float at_target = target_logit(row, target, length);
    const Sums own = read<false>(row, Layout<T>(row, length), scale * LOG2_E, static_cast<T*>(nullptr));
    const Summary summary(join_block(own, scale * LOG2_E, partials), scale);
    if (threadIdx.x == 0) {
        nll[index] = summary.nll(at_target, scale);
        entropy[index] = inside(target, length) ? summary.entropy : NOT_A_NUMBER;
    }
}

// Computes the statistics, then overwrites the logits with scale·(weight·(p − onehot) − tilt·p·(log p + entropy)).
// `tilts`, the slopes of the entropy, may be null for zero. With RESIDENT_ROW the logits are read once, into shared
// memory of length·sizeof(T) + 16 bytes. Without it they are read twice, the second time from the end that was read
// last.
template <bool RESIDENT_ROW, typename T>
DEVICE void fused(T* logits, int64 stride, int length, const int64* targets, float scale, const float* weights,
                  const float* tilts, float* nll, float* entropy) {
    SHARED(Partials, partials);
    DYNAMIC_SHARED(memory);
    const int64 index = blockIdx.x;
    T* row = logits + index * stride;
    const int64 target = targets[index];
    if (target == IGNORED) {
        if (threadIdx.x == 0) nll[index] = entropy[index] = 0.0f;
        return fill_zero(row, length);
    }
    const Layout<T> layout(row, length);
    T* kept = RESIDENT_ROW ? reinterpret_cast<T*>(memory) + Layout<T>::offset(row) : row;
    const float rate = scale * LOG2_E;
    const float at_target = target_logit(row, target, length);
    const Sums sums = join_block(read<RESIDENT_ROW>(row, layout, rate, kept), rate, partials);
    const bool valid = inside(target, length);
    if (threadIdx.x == 0) {
        const Summary summary(sums, scale);
        nll[index] = summary.nll(at_target, scale);
        entropy[index] = valid ? summary.entropy : NOT_A_NUMBER;
    }
    const float slope = valid ? weights[index] * scale : NOT_A_NUMBER;
    const float tilt = tilts == nullptr ? 0.0f : tilts[index] * scale;
    const float maximum = sums.maximum, inverse = 1.0f / sums.total;
    const float mean = scale * (sums.moment / sums.total);
    rewrite(row, static_cast<const T*>(kept), layout, [=](float logit, int item) {
        const float distance = logit - maximum;
        const float p = exp2f(distance * rate) * inverse;
        // log p + entropy, without the log Σ that both contain. The bound avoids 0·∞, which is NaN.
        const float surprise = fmaxf(distance * scale, -LARGEST) - mean;
        return slope * (p - (item == target ? 1.0f : 0.0f)) - tilt * p * surprise;
    });
}

// The kernels for one type of logits, one of them in two forms.
#define EPILOGUE(T, suffix)                                                                                             \
    KERNEL(STREAMING)                                                                                                   \
    statistics_##suffix(const T* logits, int64 stride, int length, const int64* targets, float scale, float* nll,       \
                        float* entropy) {                                                                               \
        statistics(logits, stride, length, targets, scale, nll, entropy);                                               \
    }                                                                                                                   \
    KERNEL(STREAMING)                                                                                                   \
    fused_##suffix(T* logits, int64 stride, int length, const int64* targets, float scale, const float* weights,        \
                   const float* tilts, float* nll, float* entropy) {                                                    \
        fused<false>(logits, stride, length, targets, scale, weights, tilts, nll, entropy);                             \
    }                                                                                                                   \
    KERNEL(RESIDENT)                                                                                                    \
    fused_resident_##suffix(T* logits, int64 stride, int length, const int64* targets, float scale,                     \
                            const float* weights, const float* tilts, float* nll, float* entropy) {                     \
        fused<true>(logits, stride, length, targets, scale, weights, tilts, nll, entropy);                              \
    }

EPILOGUE(float, float32)
EPILOGUE(Half, float16)
EPILOGUE(Bfloat16, bfloat16)

// Writes the indices of the rows whose weight is not zero, in order, and their number. Runs in one block.
KERNEL(RESIDENT)
kept_rows(const float* weights, int64 rows, int64* indices, int64* count) {
    struct Counts {
        int of_warp[2][WARP];
    };
    SHARED(Counts, counts);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    int64 before = 0;
    int turn = 0;
#pragma unroll 1
    for (int64 first = 0; first < rows; first += blockDim.x) {
        const int64 index = first + threadIdx.x;
        const bool keep = index < rows && weights[index] != 0.0f;
        const unsigned votes = __ballot_sync(ALL_LANES, keep);
        // Two sets of counts take turns, so that one barrier separates both writing from reading and this turn from the
        // last.
        int* of_warp = counts.of_warp[turn];
        turn = 1 - turn;
        if (lane == 0) of_warp[warp] = __popc(votes);
        __syncthreads();
        int64 place = before + __popc(votes & ((1u << lane) - 1));
#pragma unroll 1
        for (int other = 0; other < warps; ++other) {
            if (other < warp) place += of_warp[other];
            before += of_warp[other];
        }
        if (keep) indices[place] = index;
    }
    if (threadIdx.x == 0) *count = before;
}
