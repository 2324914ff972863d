//! Comparison of attention over trees, at every level that this processor has, with its definition in float64.

use proptest::prelude::*;
use refinerl_kernels::cpu::{Attention, Heads, Inputs, Level, Tree};

/// The tokens that each token sees, from the root.
fn paths(depths: &[i64]) -> Vec<Vec<usize>> {
    let mut path = Vec::new();
    let mut found = Vec::new();
    for (token, &depth) in depths.iter().enumerate() {
        path.truncate(depth as usize);
        path.push(token);
        found.push(path.clone());
    }
    found
}

struct Case {
    heads: Heads,
    queries: Vec<f64>,
    keys: Vec<f64>,
    values: Vec<f64>,
    slopes: Vec<f64>,
    scale: f64,
}

impl Case {
    fn new(tokens: usize, heads: Heads, scale: f64) -> Self {
        let some = |heads_of: usize, seed: usize| {
            let number = |i: usize| (((i + seed) * 7919) % 4001) as f64 / 1000.0 - 2.0;
            (0..tokens * heads_of * heads.width).map(number).collect()
        };
        Self {
            heads,
            queries: some(heads.queries, 1),
            keys: some(heads.keys, 500),
            values: some(heads.keys, 900),
            slopes: some(heads.queries, 1300),
            scale,
        }
    }

    /// Means, and the gradients of queries, keys and values, by head, from the definition.
    fn exact(&self, depths: &[i64]) -> [Vec<f64>; 4] {
        let Heads { queries, keys, width } = self.heads;
        let size = depths.len() * queries * width;
        let mut found = [(); 4].map(|()| vec![0.0; size]);
        for head in 0..queries {
            let row = |values: &[f64], token: usize, of: usize, head: usize| {
                values[(token * of + head) * width..][..width].to_vec()
            };
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let group = head / (queries / keys);
            for (token, path) in paths(depths).into_iter().enumerate() {
                let (q, g) = (
                    row(&self.queries, token, queries, head),
                    row(&self.slopes, token, queries, head),
                );
                let key = |&at: &usize| row(&self.keys, at, keys, group);
                let value = |&at: &usize| row(&self.values, at, keys, group);
                let scores: Vec<_> = path.iter().map(|at| self.scale * dot(&q, &key(at))).collect();
                let largest = scores.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
                let weights: Vec<_> = scores.iter().map(|score| (score - largest).exp() / sum).collect();
                let tilts: Vec<_> = path.iter().map(|at| dot(&g, &value(at))).collect();
                let mean = dot(&weights, &tilts);
                for (i, at) in path.iter().enumerate() {
                    let tilt = self.scale * weights[i] * (tilts[i] - mean);
                    for c in 0..width {
                        let (here, there) = (
                            (head * depths.len() + token) * width + c,
                            (head * depths.len() + at) * width + c,
                        );
                        found[0][here] += weights[i] * value(at)[c];
                        found[1][here] += tilt * key(at)[c];
                        found[2][there] += tilt * q[c];
                        found[3][there] += weights[i] * g[c];
                    }
                }
            }
        }
        found
    }
}

fn close(found: &[f64], exact: &[f64], tolerance: f64) {
    assert_eq!(found.len(), exact.len());
    let largest = exact.iter().fold(1.0_f64, |most, x| most.max(x.abs()));
    for (a, b) in found.iter().zip(exact) {
        assert!((a - b).abs() <= tolerance * largest, "{a} {b}");
    }
}

fn check(depths: &[i64], heads: Heads, scale: f64) {
    let tree = Tree::new(depths).expect("depths of a tree");
    let case = Case::new(tree.len(), heads, scale);
    let exact = case.exact(depths);
    let narrow = |values: &[f64]| values.iter().map(|&x| x as f32).collect::<Vec<_>>();
    let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<_>>();
    for level in Level::available() {
        for threads in [1, 3] {
            let attention = Attention::new(level, threads);
            let [q, k, v, g] = [&case.queries, &case.keys, &case.values, &case.slopes];
            let inputs = Inputs {
                queries: q,
                keys: k,
                values: v,
                scale,
            };
            close(&attention.forward(&tree, heads, inputs), &exact[0], 1e-13);
            let found = attention.backward(&tree, heads, inputs, g);
            for (found, exact) in [found.queries, found.keys, found.values].iter().zip(&exact[1..]) {
                close(found, exact, 1e-13);
            }
            let [q, k, v, g] = [q, k, v, g].map(|values| narrow(values));
            let inputs = Inputs {
                queries: &q,
                keys: &k,
                values: &v,
                scale: scale as f32,
            };
            close(&wide(attention.forward(&tree, heads, inputs)), &exact[0], 3e-5);
            let found = attention.backward(&tree, heads, inputs, &g);
            for (found, exact) in [found.queries, found.keys, found.values].into_iter().zip(&exact[1..]) {
                close(&wide(found), exact, 3e-5);
            }
        }
    }
}

fn shape() -> impl Strategy<Value = Heads> {
    let shapes = [(1, 1, 1), (4, 4, 24), (6, 2, 16), (3, 1, 33)];
    (0..shapes.len()).prop_map(move |i| {
        let (queries, keys, width) = shapes[i];
        Heads { queries, keys, width }
    })
}

fn depths() -> impl Strategy<Value = Vec<i64>> {
    // Three in four tokens are children of the one before.
    prop::collection::vec((0..4, 0..1_000_000_i64), 0..50).prop_map(|steps| {
        let mut depths: Vec<i64> = Vec::new();
        for (kind, place) in steps {
            let deepest = depths.last().map_or(0, |last| last + 1);
            depths.push(if kind > 0 { deepest } else { place % (deepest + 1) });
        }
        depths
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_tree(depths in depths(), heads in shape(), scale in 0.05..0.4) {
        check(&depths, heads, scale);
    }
}

#[test]
fn rows_longer_than_a_tile_and_than_vectors() {
    let depths: Vec<_> = (0..90).chain(37..120).chain(0..30).chain(29..31).collect();
    check(
        &depths,
        Heads {
            queries: 2,
            keys: 1,
            width: 64,
        },
        0.1,
    );
}

#[test]
fn no_tree() {
    for depths in [&[1_i64][..], &[0, 2], &[0, 1, 3], &[-1], &[0, -1]] {
        assert!(Tree::new(depths).is_none(), "{depths:?}");
    }
    assert!(Tree::new(&[]).expect("a tree without tokens").is_empty());
}
