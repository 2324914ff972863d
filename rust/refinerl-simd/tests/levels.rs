//! The levels that are found, against the kernel's list of the processor's features.

use refinerl_simd::Level;

#[test]
fn the_best_level_is_the_last_of_those_available() {
    let available = Level::available();
    assert_eq!(available.first(), Some(&Level::Portable));
    assert_eq!(available.last(), Some(&Level::best()));
}

/// The kernel learns of features from another source than the detection in the standard library.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[test]
fn the_processor_has_the_features_of_the_levels() {
    let features = std::fs::read_to_string("/proc/cpuinfo").expect("Linux describes its processors");
    let has = |feature: &str| features.split_whitespace().any(|word| word == feature);
    let bits = has("bmi1") && has("bmi2") && has("abm"); // the kernel's name for LZCNT and POPCNT
    let available = Level::available();
    assert_eq!(available.contains(&Level::Avx2), has("avx2") && has("fma") && bits);
    assert_eq!(available.contains(&Level::Avx512), has("avx512f") && bits);
}
