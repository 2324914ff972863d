//! Time of attention over trees on one thread: `cargo bench -p refinerl-kernels --bench attention`.

use std::time::Instant;

use refinerl_kernels::cpu::{Attention, Heads, Inputs, Level, Tree};

/// Depths of the tokens of `prompts`, each with responses.
fn forest(prompts: usize, prompt: i64, responses: usize, response: i64) -> Vec<i64> {
    let one = (0..responses).flat_map(|_| prompt..prompt + response);
    let one: Vec<_> = (0..prompt).chain(one).collect();
    one.repeat(prompts)
}

fn best(mut run: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..9 {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    1e3 * best
}

fn main() {
    let trees = [
        ("short rows", forest(8, 5, 6, 20)),
        ("a prompt", forest(2, 200, 8, 60)),
        ("long rows", forest(2, 60, 2, 1000)),
    ];
    for level in Level::available() {
        for (name, depths) in &trees {
            for heads in [
                Heads {
                    queries: 4,
                    keys: 4,
                    width: 24,
                },
                Heads {
                    queries: 9,
                    keys: 3,
                    width: 64,
                },
            ] {
                let tree = Tree::new(depths).expect("depths of a tree");
                let number = |i: usize| ((i * 7919) % 4001) as f32 / 2000.0 - 1.0;
                let some = |heads: usize| (0..tree.len() * heads).map(number).collect::<Vec<_>>();
                let [queries, keys] = [heads.queries, heads.keys].map(|count| some(count * heads.width));
                let inputs = Inputs {
                    queries: &queries,
                    keys: &keys,
                    values: &keys,
                    scale: 0.2,
                };
                let attention = Attention::new(level, 1);
                let forward = best(|| drop(attention.forward(&tree, heads, inputs)));
                let slopes = some(heads.queries * heads.width);
                let backward = best(|| drop(attention.backward(&tree, heads, inputs, &slopes)));
                let pairs: i64 = depths.iter().map(|depth| depth + 1).sum();
                let flops = 4e-6 * pairs as f64 * (heads.queries * heads.width) as f64;
                println!(
                    "{level:?}, {name}, {} tokens, {} × {}: {forward:.2} ms ({:.0} G/s) and {backward:.2} ms ({:.0} G/s)",
                    tree.len(), heads.queries, heads.width, flops / forward, 2.5 * flops / backward
                );
            }
        }
    }
}
