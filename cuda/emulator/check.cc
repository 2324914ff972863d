// Runs every kernel on small cases in memory of exactly their size and compares the results with double precision. This
// is the program that the sanitizers watch. Prints errors; the exit status is 0 if there are none. Argument: the first
// of a few seeds.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "device.cuh"
#include "kernels.h"

namespace {

int wrong = 0;
std::uint64_t seed = 0;

// Memory of exactly these items. The first lies `offset` items after a 16-byte boundary.
template <typename T>
struct Exact {
    std::unique_ptr<unsigned char[]> bytes;
    T* items;
    Exact(std::size_t count, std::size_t offset)
        : bytes(new unsigned char[(count + offset) * sizeof(T)]), items(reinterpret_cast<T*>(bytes.get()) + offset) {}
};

template <typename... Arguments>
void launch(const std::string& name, unsigned blocks, unsigned threads, std::size_t dynamic_bytes, Arguments... arguments) {
    void* places[] = {&arguments...};
    const emulator::Invoke invoke = emulator::find(name);
    emulator::run({blocks, threads, dynamic_bytes, seed++}, [&] { invoke(places); });
}

void near(double got, double wanted, double tolerance, const std::string& what, int row) {
    if (std::fabs(got - wanted) <= tolerance * (1.0 + std::fabs(wanted))) return;
    if (++wrong <= 10) std::printf("%s, row %d: %.9g, not %.9g\n", what.c_str(), row, got, wanted);
}

template <typename T>
void epilogue(const std::string& suffix, int rows, int length, std::size_t offset, unsigned threads, double tolerance) {
    std::mt19937 random(static_cast<unsigned>(seed));
    std::normal_distribution<float> normal;
    const float scale = 1.25f;
    const std::size_t count = static_cast<std::size_t>(rows) * length;
    Exact<T> logits(count, offset);
    for (std::size_t i = 0; i < count; ++i) narrow(3.0f * normal(random), logits.items[i]);
    std::vector<long long> targets(rows);
    std::vector<float> weights(rows), tilts(rows), nll(rows), entropy(rows);
    std::vector<double> wanted(count), tilted(count), cost(rows), spread(rows);
    for (int row = 0; row < rows; ++row) {
        targets[row] = row % 4 == 0 ? 0 : row % 4 == 1 ? length - 1 : row % 4 == 2 ? -100 : random() % length;
        weights[row] = 0.5f + 0.1f * static_cast<float>(row);
        tilts[row] = 0.3f - 0.2f * static_cast<float>(row);
        if (targets[row] == -100) continue;
        const T* x = logits.items + static_cast<std::size_t>(row) * length;
        double maximum = -INFINITE, total = 0.0;
        for (int i = 0; i < length; ++i) maximum = std::fmax(maximum, double(scale) * widen(x[i]));
        for (int i = 0; i < length; ++i) total += std::exp(double(scale) * widen(x[i]) - maximum);
        for (int i = 0; i < length; ++i) {
            const double log_p = double(scale) * widen(x[i]) - maximum - std::log(total);
            spread[row] -= std::exp(log_p) * log_p;
            wanted[static_cast<std::size_t>(row) * length + i] =
                weights[row] * scale * (std::exp(log_p) - (i == targets[row] ? 1.0 : 0.0));
            if (i == targets[row]) cost[row] = -log_p;
        }
        for (int i = 0; i < length; ++i) {
            const std::size_t place = static_cast<std::size_t>(row) * length + i;
            const double log_p = double(scale) * widen(x[i]) - maximum - std::log(total);
            tilted[place] = wanted[place] - tilts[row] * scale * std::exp(log_p) * (log_p + spread[row]);
        }
    }
    const auto results = [&](const std::string& kernel) {
        for (int row = 0; row < rows; ++row) {
            near(nll[row], cost[row], 1e-5, kernel + " nll", row);
            near(entropy[row], spread[row], 1e-5, kernel + " entropy", row);
            nll[row] = entropy[row] = NOT_A_NUMBER;
        }
    };
    const auto gradients = [&](const std::string& kernel, const T* got, const std::vector<double>& right) {
        for (std::size_t i = 0; i < count; ++i) {
            near(widen(got[i]), right[i], tolerance, kernel + " gradient", static_cast<int>(i / length));
        }
    };
    const long long stride = length;
    const auto copied = [&] {
        auto copy = std::make_unique<Exact<T>>(count, offset);
        std::copy(logits.items, logits.items + count, copy->items);
        return copy;
    };
    launch("statistics_" + suffix, rows, threads, 0, logits.items, stride, length, targets.data(), scale, nll.data(),
           entropy.data());
    results("statistics");
    for (const bool resident : {false, true}) {
        const std::string kernel = (resident ? "fused_resident_" : "fused_") + suffix;
        const std::size_t memory = resident ? length * sizeof(T) + 16 : 0;
        float* const none = nullptr;
        auto copy = copied();
        launch(kernel, rows, threads, memory, copy->items, stride, length, targets.data(), scale, weights.data(), none,
               nll.data(), entropy.data());
        results(kernel);
        gradients(kernel, copy->items, wanted);
        copy = copied();
        launch(kernel, rows, threads, memory, copy->items, stride, length, targets.data(), scale, weights.data(),
               tilts.data(), nll.data(), entropy.data());
        results(kernel + " with entropy");
        gradients(kernel + " with entropy", copy->items, tilted);
    }
}

void kept_rows(long long rows, unsigned threads) {
    std::vector<float> weights(rows);
    std::vector<long long> indices(rows, -1), wanted;
    long long count = -1;
    for (long long row = 0; row < rows; ++row) weights[row] = row * 7 % 5 < 2 ? 1.0f : 0.0f;
    for (long long row = 0; row < rows; ++row) {
        if (weights[row] != 0.0f) wanted.push_back(row);
    }
    launch("kept_rows", 1, threads, 0, weights.data(), rows, indices.data(), &count);
    near(count, static_cast<double>(wanted.size()), 0.0, "count of kept rows", 0);
    for (std::size_t i = 0; i < wanted.size(); ++i) near(indices[i], wanted[i], 0.0, "kept_rows", static_cast<int>(i));
}

}  // namespace

int main(int count, char** arguments) {
    seed = count > 1 ? std::strtoull(arguments[1], nullptr, 10) : 0;
    for (const int length : {1, 5, 31, 517, 1042}) {
        for (const std::size_t offset : {0, 1, 3}) {
            epilogue<float>("float32", 5, length, offset, 64, 1e-6);
            epilogue<Half>("float16", 5, length, offset, 96, 1e-3);
            epilogue<Bfloat16>("bfloat16", 5, length, offset, 64, 8e-3);
        }
    }
    kept_rows(1, 32);
    kept_rows(333, 64);
    kept_rows(150, 64);
    std::printf("%d wrong\n", wrong);
    return wrong != 0;
}
