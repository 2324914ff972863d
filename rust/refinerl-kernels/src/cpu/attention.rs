//! Attention over a tree of tokens: each sees those above it, and itself.
//!
//! In depth-first order the tokens on the path to the current one are a stack. A token is written over the last one of
//! its depth, which no later token sees; then column j of the stack is the token of depth j that the current one sees.
//! So no key is gathered, and nothing is computed in vain but products of a tile's tokens with each other. In the
//! backward pass, the gradients of keys and values add up on the stack as well, until another token takes their place.
//!
//! A tile is some tokens of which each is the child of the one before. Heads are shared out among threads.

mod backward;
mod forward;
mod real;

pub use real::Real;
use real::LANES;

use super::simd::{Level, Vectors};
use super::threads;

/// Most tokens of a tile.
const TILE: usize = 24;

/// Products of two elements below which another thread does not pay: they take about a millisecond.
const PRODUCTS_PER_THREAD: usize = 1 << 24;

/// The heads of queries, those of keys, which they share evenly, and the elements of each.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Of queries.
    pub queries: usize,
    /// Of keys and values.
    pub keys: usize,
    /// Elements of each.
    pub width: usize,
}

/// T tokens in depth-first order.
#[derive(Clone, Debug)]
pub struct Tree {
    tiles: Vec<Tile>,
    tokens: usize,
    deepest: usize,
    seen: usize,
}

/// Tokens `first`, `first` + 1, … at `depth`, `depth` + 1, …
#[derive(Clone, Copy, Debug)]
struct Tile {
    first: usize,
    count: usize,
    depth: usize,
}

impl Tile {
    /// The number of tokens that its last one sees.
    fn seen(self) -> usize {
        self.depth + self.count
    }
}

impl Tree {
    /// Make a tree from the depth of each token; None if a token is more than one below that before it.
    pub fn new(depths: &[i64]) -> Option<Self> {
        let mut tiles: Vec<Tile> = Vec::new();
        let (mut deepest, mut seen) = (0, 0);
        for (token, &depth) in depths.iter().enumerate() {
            let depth = usize::try_from(depth).ok()?;
            let last = tiles.last_mut();
            if depth > last.as_ref().map_or(0, |tile| tile.seen()) {
                return None;
            }
            match last {
                Some(tile) if tile.seen() == depth && tile.count < TILE => tile.count += 1,
                _ => tiles.push(Tile {
                    first: token,
                    count: 1,
                    depth,
                }),
            }
            deepest = deepest.max(depth + 1);
            seen += depth + 1;
        }
        Some(Self {
            tiles,
            tokens: depths.len(),
            deepest,
            seen,
        })
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.tokens
    }

    /// True if there is no token.
    pub fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    /// Columns of the stack.
    fn columns(&self) -> usize {
        self.deepest.next_multiple_of(LANES)
    }
}

/// Queries (T, heads, width); keys and values (T, heads of keys, width); the factor of scores, positive.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a, T> {
    /// Queries.
    pub queries: &'a [T],
    /// Keys.
    pub keys: &'a [T],
    /// Values.
    pub values: &'a [T],
    /// The factor of scores.
    pub scale: T,
}

/// Gradients of inputs, (heads, T, width) each; those of keys and values are apart for each head of queries.
#[derive(Clone, Debug)]
pub struct Gradients<T> {
    /// Of queries.
    pub queries: Vec<T>,
    /// Of keys.
    pub keys: Vec<T>,
    /// Of values.
    pub values: Vec<T>,
}

/// Attention at a level of SIMD, on a number of threads.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    vectors: Vectors,
    threads: usize,
}

impl Attention {
    /// # Panics
    /// If this processor lacks the level.
    pub fn new(level: Level, threads: usize) -> Self {
        Self {
            vectors: Vectors::new(level),
            threads,
        }
    }

    /// Compute the attention of each token: the weighted means of values, (heads, T, width).
    ///
    /// # Panics
    /// If the lengths do not agree, or queries do not share the keys' heads evenly.
    pub fn forward<T: Real>(&self, tree: &Tree, heads: Heads, inputs: Inputs<'_, T>) -> Vec<T> {
        check(tree, heads, inputs);
        let mut found = vec![T::default(); inputs.queries.len()];
        let jobs = found.chunks_mut((tree.len() * heads.width).max(1)).enumerate();
        threads::share(self.threads(tree, heads, 2), jobs, |(head, means)| {
            forward::walk(self.vectors, tree, Head { heads, head }, inputs, means);
        });
        found
    }

    /// Compute the gradients of inputs, given those of the means, (T, heads, width).
    ///
    /// # Panics
    /// As `forward`.
    pub fn backward<T: Real>(&self, tree: &Tree, heads: Heads, inputs: Inputs<'_, T>, slopes: &[T]) -> Gradients<T> {
        check(tree, heads, inputs);
        assert_eq!(slopes.len(), inputs.queries.len());
        let all = vec![T::default(); slopes.len()];
        let mut found = Gradients {
            queries: all.clone(),
            keys: all.clone(),
            values: all,
        };
        let of_head = (tree.len() * heads.width).max(1);
        let keys = found.keys.chunks_mut(of_head).zip(found.values.chunks_mut(of_head));
        let jobs = found.queries.chunks_mut(of_head).zip(keys).enumerate();
        threads::share(
            self.threads(tree, heads, 5),
            jobs,
            |(head, (queries, (keys, values)))| {
                let head = Head { heads, head };
                backward::walk(self.vectors, tree, head, inputs, slopes, [queries, keys, values]);
            },
        );
        found
    }

    /// Count the threads that this many products of matrices keep busy.
    fn threads(&self, tree: &Tree, heads: Heads, products: usize) -> usize {
        let work = tree.seen * heads.queries * heads.width * products;
        self.threads.min(work / PRODUCTS_PER_THREAD + 1)
    }
}

fn check<T>(tree: &Tree, heads: Heads, inputs: Inputs<'_, T>) {
    let Heads { queries, keys, width } = heads;
    assert!(keys > 0 && queries.is_multiple_of(keys));
    assert_eq!(inputs.queries.len(), tree.len() * queries * width);
    assert_eq!(inputs.keys.len(), tree.len() * keys * width);
    assert_eq!(inputs.values.len(), inputs.keys.len());
}

/// One head of queries.
#[derive(Clone, Copy)]
struct Head {
    heads: Heads,
    head: usize,
}

impl Head {
    /// The place of a token's query.
    fn query(self, token: usize) -> usize {
        (token * self.heads.queries + self.head) * self.heads.width
    }

    /// The place of a token's key and value.
    fn key(self, token: usize) -> usize {
        let group = self.head / (self.heads.queries / self.heads.keys);
        (token * self.heads.keys + group) * self.heads.width
    }

    /// Elements of a row that is padded to whole vectors.
    fn padded(self) -> usize {
        self.heads.width.next_multiple_of(LANES)
    }
}
