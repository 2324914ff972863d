//! The binding of `refinerl_kernels::cpu::Attention`. `refinerl.kernels.tree_attention` is its only caller. Arrays are
//! contiguous views of PyTorch's tensors.

use numpy::PyUntypedArrayMethods;
use numpy::{Element, IntoPyArray, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray3};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use refinerl_kernels::cpu::{Attention, Heads, Inputs, Level, Real, Tree};

type Array<'py> = Bound<'py, PyAny>;

fn invalid(rule: String) -> PyErr {
    PyValueError::new_err(rule)
}

/// The number of threads, and the level of SIMD by name.
type Place<'a> = (usize, &'a str);

fn attention((threads, level): Place<'_>) -> PyResult<Attention> {
    let levels = Level::available();
    let found = levels.iter().find(|found| found.name() == level);
    let level = found.ok_or_else(|| invalid(format!("level must be one of this processor, got {level}")))?;
    Ok(Attention::new(*level, threads))
}

/// The tree, and queries, keys and values: (T, heads, width), where keys and values may have fewer heads.
struct Given<'py, T: Element> {
    tree: Tree,
    heads: Heads,
    inputs: [PyReadonlyArray3<'py, T>; 3],
    scale: T,
}

impl<'py, T: Real + Element> Given<'py, T> {
    fn new(inputs: [&Array<'py>; 3], depths: &PyReadonlyArray1<'py, i64>, scale: T) -> PyResult<Self> {
        let [queries, keys, values] = inputs;
        let inputs: [PyReadonlyArray3<'py, T>; 3] = [queries.extract()?, keys.extract()?, values.extract()?];
        let tree = Tree::new(depths.as_slice()?)
            .ok_or_else(|| invalid("depths must be those of tokens in depth-first order".to_owned()))?;
        let [queries, keys, values] = [0, 1, 2].map(|i| inputs[i].shape().to_vec());
        let heads = Heads {
            queries: queries[1],
            keys: keys[1],
            width: queries[2],
        };
        let shares = heads.keys > 0 && heads.queries.is_multiple_of(heads.keys);
        if !shares || queries[0] != tree.len() || keys != [tree.len(), heads.keys, heads.width] || keys != values {
            return Err(invalid(format!(
                "queries, keys and values must be (T, heads, width) for {} tokens, got {queries:?}, {keys:?} and {values:?}",
                tree.len()
            )));
        }
        Ok(Self {
            tree,
            heads,
            inputs,
            scale,
        })
    }

    fn inputs(&self) -> PyResult<Inputs<'_, T>> {
        let [queries, keys, values] = &self.inputs;
        Ok(Inputs {
            queries: queries.as_slice()?,
            keys: keys.as_slice()?,
            values: values.as_slice()?,
            scale: self.scale,
        })
    }

    /// Results of each head of queries and token, (heads, T, width).
    fn by_head(&self, py: Python<'py>, found: Vec<T>) -> PyResult<Array<'py>> {
        let shape = [self.heads.queries, self.tree.len(), self.heads.width];
        Ok(found.into_pyarray(py).reshape(shape)?.into_any())
    }

    fn forward(&self, py: Python<'py>, place: Place<'_>) -> PyResult<Array<'py>> {
        let (attention, inputs) = (attention(place)?, self.inputs()?);
        let (tree, heads) = (&self.tree, self.heads);
        let found = py.detach(|| attention.forward(tree, heads, inputs));
        self.by_head(py, found)
    }

    fn backward(&self, py: Python<'py>, slopes: &Array<'py>, place: Place<'_>) -> PyResult<[Array<'py>; 3]> {
        let slopes: PyReadonlyArray3<'py, T> = slopes.extract()?;
        if slopes.shape() != self.inputs[0].shape() {
            let (got, queries) = (slopes.shape(), self.inputs[0].shape());
            return Err(invalid(format!("slopes must be {queries:?}, as queries, got {got:?}")));
        }
        let (attention, inputs, slopes) = (attention(place)?, self.inputs()?, slopes.as_slice()?);
        let (tree, heads) = (&self.tree, self.heads);
        let found = py.detach(|| attention.backward(tree, heads, inputs, slopes));
        Ok([
            self.by_head(py, found.queries)?,
            self.by_head(py, found.keys)?,
            self.by_head(py, found.values)?,
        ])
    }
}

fn is_double(array: &Array<'_>) -> bool {
    array.extract::<PyReadonlyArray3<'_, f64>>().is_ok()
}

fn check(scale: f64) -> PyResult<()> {
    if scale > 0.0 && scale.is_finite() {
        return Ok(());
    }
    Err(invalid(format!("scale must be positive, got {scale}")))
}

/// Compute attention over a tree, (heads, T, width).
#[pyfunction]
#[pyo3(signature = (queries, keys, values, depths, *, scale, threads, level))]
#[expect(clippy::too_many_arguments, reason = "those of attention")]
fn tree_attention<'py>(
    py: Python<'py>,
    queries: &Array<'py>,
    keys: &Array<'py>,
    values: &Array<'py>,
    depths: PyReadonlyArray1<'py, i64>,
    scale: f64,
    threads: usize,
    level: &str,
) -> PyResult<Array<'py>> {
    check(scale)?;
    let (inputs, place) = ([queries, keys, values], (threads, level));
    if is_double(queries) {
        return Given::new(inputs, &depths, scale)?.forward(py, place);
    }
    Given::new(inputs, &depths, scale as f32)?.forward(py, place)
}

/// Compute the gradients of queries, keys and values, for each head of queries, from those of the means.
#[pyfunction]
#[pyo3(signature = (queries, keys, values, depths, slopes, *, scale, threads, level))]
#[expect(clippy::too_many_arguments, reason = "those of attention, and the slopes")]
fn tree_attention_backward<'py>(
    py: Python<'py>,
    queries: &Array<'py>,
    keys: &Array<'py>,
    values: &Array<'py>,
    depths: PyReadonlyArray1<'py, i64>,
    slopes: &Array<'py>,
    scale: f64,
    threads: usize,
    level: &str,
) -> PyResult<[Array<'py>; 3]> {
    check(scale)?;
    let (inputs, place) = ([queries, keys, values], (threads, level));
    if is_double(queries) {
        return Given::new(inputs, &depths, scale)?.backward(py, slopes, place);
    }
    Given::new(inputs, &depths, scale as f32)?.backward(py, slopes, place)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(tree_attention, module)?)?;
    module.add_function(wrap_pyfunction!(tree_attention_backward, module)?)
}
