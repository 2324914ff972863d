//! One row. Its blocks fit the innermost cache, so each is read from further away once in a pass.

use super::simd::{Exponent, Vectors};

/// Elements of a block: 8 KiB.
const BLOCK: usize = 2048;

/// What a row of logits says of its target.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Statistics {
    /// −log softmax of the target, in nats.
    pub nll: f32,
    /// In nats.
    pub entropy: f32,
    /// log Σ exp of the scaled logits. In float32 a value of 1e4 would cost every probability three digits.
    pub logsumexp: f64,
}

/// What a row's gradient is made of.
#[derive(Clone, Copy, Debug)]
pub struct Upstream {
    /// Of the nll.
    pub nll: f32,
    /// Of the entropy.
    pub entropy: f32,
    /// The row's `Statistics::entropy`.
    pub row_entropy: f32,
    /// The row's `Statistics::logsumexp`, or what is near it: the exponentials are normalised anew, because logits that
    /// were computed again in another company of rows are not the same to the last bit.
    pub logsumexp: f64,
}

/// Σ e^d and Σ e^d·d over the blocks so far, d = scale·z − scale·largest.
struct Running {
    largest: f32,
    scale: f32,
    sum: f64,
    dot: f64,
}

impl Running {
    fn new(scale: f32) -> Self {
        Self {
            largest: f32::NEG_INFINITY,
            scale,
            sum: 0.0,
            dot: 0.0,
        }
    }

    /// scale·largest; the product is exact in float64.
    fn reference(&self) -> f64 {
        f64::from(self.largest) * f64::from(self.scale)
    }

    /// Takes a higher reference.
    fn raise(&mut self, largest: f32) {
        if largest > self.largest {
            let before = self.reference();
            self.largest = largest;
            if self.sum != 0.0 {
                let shift = before - self.reference();
                self.dot = shift.exp() * (self.dot + shift * self.sum);
                self.sum *= shift.exp();
            }
        }
    }

    fn add(&mut self, (sum, dot): (f64, f64)) {
        self.sum += sum;
        self.dot += dot;
    }

    /// How exponents are made. A row that began with −∞ has no finite reference yet, and needs none.
    fn exponent(&self) -> Exponent {
        let reference = self.reference();
        Exponent::new(self.scale, if reference == f64::NEG_INFINITY { 0.0 } else { reference })
    }

    fn statistics(&self, target: f32) -> Statistics {
        // NaN where all logits are −∞, as in PyTorch.
        let log_sum = if self.sum == 0.0 { f64::NAN } else { self.sum.ln() };
        let distance = self.reference() - f64::from(target) * f64::from(self.scale);
        Statistics {
            nll: (distance + log_sum) as f32,
            entropy: (log_sum - self.dot / self.sum) as f32,
            logsumexp: self.reference() + log_sum,
        }
    }
}

pub(super) fn statistics(vectors: Vectors, row: &[f32], target: usize, scale: f32) -> Statistics {
    let mut running = Running::new(scale);
    for block in row.chunks(BLOCK) {
        running.raise(vectors.maximum(block));
        running.add(vectors.sums(block, running.exponent()));
    }
    running.statistics(row[target])
}

pub(super) fn fused(vectors: Vectors, row: &mut [f32], target: usize, weight: f32, scale: f32) -> Statistics {
    let (mut running, aim) = (Running::new(scale), row[target]);
    let mut references = Vec::with_capacity(row.len().div_ceil(BLOCK));
    for block in row.chunks_mut(BLOCK) {
        running.raise(vectors.maximum(block));
        running.add(vectors.exponentials(block, running.exponent()));
        references.push(running.reference());
    }
    let found = running.statistics(aim);
    let weight = f64::from(weight) * f64::from(scale);
    for (block, reference) in row.chunks_mut(BLOCK).zip(references) {
        // 0 for blocks of nothing but −∞, whose exponentials are 0 already.
        let shift = (reference - running.reference()).exp();
        vectors.multiply(block, (shift * weight / running.sum) as f32);
    }
    // p − 1 without cancellation where p is almost 1.
    row[target] = (weight * (-f64::from(found.nll)).exp_m1()) as f32;
    found
}

pub(super) fn gradient(vectors: Vectors, row: &mut [f32], target: usize, upstream: &Upstream, scale: f32) {
    let nll = f64::from(upstream.nll) * f64::from(scale);
    let entropy = f64::from(upstream.entropy) * f64::from(scale);
    let mut exponent = Exponent::new(scale, upstream.logsumexp);
    let mut aim = [row[target]];
    vectors.exponentials(&mut aim, exponent);
    let mut sum = 0.0;
    if entropy == 0.0 {
        for block in row.chunks_mut(BLOCK) {
            sum += vectors.exponentials(block, exponent).0;
        }
        for block in row.chunks_mut(BLOCK) {
            vectors.multiply(block, (nll / sum) as f32);
        }
        row[target] = (nll * (f64::from(aim[0]) / sum - 1.0)) as f32;
    } else {
        for block in row.chunks(BLOCK) {
            sum += vectors.sums(block, exponent).0;
        }
        exponent = Exponent::new(scale, upstream.logsumexp + sum.ln());
        // nll·p − entropy·p·(log p + H), and for the target −nll besides, which is added before p is rounded away.
        let constant = nll - entropy * f64::from(upstream.row_entropy);
        for block in row.chunks_mut(BLOCK) {
            vectors.slope(block, exponent, constant as f32, -entropy as f32);
        }
        let p = f64::from(aim[0]) / sum;
        let log_p = if p > 0.0 { p.ln() } else { 0.0 };
        row[target] = (p * (constant - entropy * log_p) - nll) as f32;
    }
}
