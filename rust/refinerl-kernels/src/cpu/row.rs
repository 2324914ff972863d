//! One row, in blocks that fit the innermost cache, so that a pass reads each from farther away only once.

use super::simd::{Exponent, Vectors};

/// Elements of a block (8 KiB).
const BLOCK: usize = 2048;

/// The statistics of a row of logits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Statistics {
    /// −log softmax of the target, in nats.
    pub nll: f32,
    /// The entropy in nats.
    pub entropy: f32,
}

/// The derivatives of a loss with respect to a row's statistics.
#[derive(Clone, Copy, Debug)]
pub struct Slopes {
    /// With respect to nll.
    pub nll: f32,
    /// With respect to the entropy.
    pub entropy: f32,
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

    /// scale·largest, which is exact in float64.
    fn reference(&self) -> f64 {
        f64::from(self.largest) * f64::from(self.scale)
    }

    /// Raise the reference to a larger logit.
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

    /// The exponents of the next block. A row that began with −∞ has no finite reference yet, and needs none.
    fn exponent(&self) -> Exponent {
        let reference = self.reference();
        Exponent::new(self.scale, if reference == f64::NEG_INFINITY { 0.0 } else { reference })
    }

    /// log Σ e^d; NaN where all logits are −∞, as in PyTorch.
    fn log_sum(&self) -> f64 {
        if self.sum == 0.0 {
            f64::NAN
        } else {
            self.sum.ln()
        }
    }

    /// log softmax of a logit.
    fn log_p(&self, logit: f32) -> f64 {
        f64::from(logit) * f64::from(self.scale) - self.reference() - self.log_sum()
    }

    fn entropy(&self) -> f64 {
        self.log_sum() - self.dot / self.sum
    }

    fn statistics(&self, aim: f32) -> Statistics {
        Statistics {
            nll: -self.log_p(aim) as f32,
            entropy: self.entropy() as f32,
        }
    }
}

pub(super) fn statistics(vectors: Vectors, row: &[f32], target: usize, scale: f32) -> Statistics {
    summed(vectors, row, scale).statistics(row[target])
}

fn summed(vectors: Vectors, row: &[f32], scale: f32) -> Running {
    let mut running = Running::new(scale);
    for block in row.chunks(BLOCK) {
        running.raise(vectors.maximum(block));
        running.add(vectors.sums(block, running.exponent()));
    }
    running
}

/// Compute the statistics, and overwrite the row with the gradient of `slopes.nll`·nll + `slopes.entropy`·H.
pub(super) fn fused(vectors: Vectors, row: &mut [f32], target: usize, slopes: Slopes, scale: f32) -> Statistics {
    let aim = row[target];
    let nll = f64::from(slopes.nll) * f64::from(scale);
    let entropy = f64::from(slopes.entropy) * f64::from(scale);
    let running = if slopes.entropy == 0.0 {
        probabilities(vectors, row, nll, scale)
    } else {
        let running = summed(vectors, row, scale);
        // p·(nll − entropy·(log p + H))
        let exponent = Exponent::new(scale, running.reference() + running.log_sum());
        let constant = nll - entropy * running.entropy();
        for block in row.chunks_mut(BLOCK) {
            vectors.slope(block, exponent, constant as f32, -entropy as f32);
        }
        running
    };
    let log_p = running.log_p(aim);
    // An impossible token adds nothing to the entropy, although its log is −∞.
    let of_entropy = if log_p == f64::NEG_INFINITY {
        0.0
    } else {
        log_p.exp() * (log_p + running.entropy())
    };
    // p − 1 without cancellation where p is almost 1.
    row[target] = (nll * log_p.exp_m1() - entropy * of_entropy) as f32;
    running.statistics(aim)
}

/// Overwrite the row with `factor`·p, with one exponential for each element.
fn probabilities(vectors: Vectors, row: &mut [f32], factor: f64, scale: f32) -> Running {
    let mut running = Running::new(scale);
    let mut references = Vec::with_capacity(row.len().div_ceil(BLOCK));
    for block in row.chunks_mut(BLOCK) {
        running.raise(vectors.maximum(block));
        running.add(vectors.exponentials(block, running.exponent()));
        references.push(running.reference());
    }
    for (block, reference) in row.chunks_mut(BLOCK).zip(references) {
        // 0 for blocks of only −∞, whose exponentials are already 0.
        let shift = (reference - running.reference()).exp();
        vectors.multiply(block, (shift * factor / running.sum) as f32);
    }
    running
}
