//! The binding of `refinerl-align`. `refinerl.alignment`, its only caller, has checked counts and lengths.

use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;
use pyo3::types::PyList;
use refinerl_align as core;

use crate::integers;
use crate::sequences::{invalid, Sequences};

/// Tokens to align between checks for Ctrl-C.
const TOKENS_BETWEEN_SIGNALS: usize = 1 << 22;

/// The derivation of a refined sequence from an original one by the fewest insertions and deletions.
///
/// Each access creates the arrays anew.
#[pyclass(frozen, eq, hash, module = "refinerl._core")]
#[derive(PartialEq, Eq, Hash)]
struct Alignment(core::Alignment);

type Runs = Vec<(u32, u32, u32)>;

#[pymethods]
impl Alignment {
    /// Rebuild an alignment from its lengths and kept runs (position in y, position in ỹ, length).
    #[staticmethod]
    fn from_runs(original_length: u32, refined_length: u32, runs: Runs) -> PyResult<Self> {
        let shown = format!("{runs:?}");
        let list = runs.into_iter().map(|(original, refined, length)| core::Run {
            original,
            refined,
            length,
        });
        core::Alignment::from_runs(original_length, refined_length, list.collect())
            .map(Self)
            .ok_or_else(|| invalid("runs", "in order, apart and within the lengths", shown))
    }

    #[getter]
    fn original_length(&self) -> usize {
        self.0.original_length()
    }

    #[getter]
    fn refined_length(&self) -> usize {
        self.0.refined_length()
    }

    #[getter]
    fn prefix(&self) -> usize {
        self.0.prefix()
    }

    #[getter]
    fn distance(&self) -> usize {
        self.0.distance()
    }

    #[getter]
    fn copy_ratio(&self) -> f64 {
        self.0.copy_ratio()
    }

    #[getter]
    fn runs(&self) -> Runs {
        self.0
            .runs()
            .iter()
            .map(|run| (run.original, run.refined, run.length))
            .collect()
    }

    #[getter]
    fn original_kept<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<bool>> {
        self.0.original_kept().into_pyarray(py)
    }

    #[getter]
    fn refined_kept<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<bool>> {
        self.0.refined_kept().into_pyarray(py)
    }

    #[getter]
    fn refined_to_original<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i64>> {
        self.0.refined_to_original().into_pyarray(py)
    }

    fn __repr__(&self) -> String {
        let (prefix, distance) = (self.0.prefix(), self.0.distance());
        let (original, refined) = (self.0.original_length(), self.0.refined_length());
        format!("Alignment(original_length={original}, refined_length={refined}, prefix={prefix}, distance={distance})")
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, (u32, u32, Runs))> {
        let this = slf.get();
        let lengths = (this.original_length() as u32, this.refined_length() as u32);
        Ok((slf.getattr("from_runs")?, (lengths.0, lengths.1, this.runs())))
    }
}

/// Align pairs of token sequences. Returns None if one is no list, tuple or one-dimensional array of int32 or int64.
///
/// `threads`: None is all cores, 1 is the calling thread alone.
#[pyfunction]
#[pyo3(signature = (originals, refined, *, threads = None))]
fn align(
    py: Python<'_>,
    originals: &Bound<'_, PyList>,
    refined: &Bound<'_, PyList>,
    threads: Option<usize>,
) -> PyResult<Option<Vec<Alignment>>> {
    let held = (
        Sequences::hold("originals", originals)?,
        Sequences::hold("refined", refined)?,
    );
    let (Some(originals), Some(refined)) = held else {
        return Ok(None);
    };
    let pairs: Vec<_> = originals.tokens()?.into_iter().zip(refined.tokens()?).collect();
    let pool = match threads {
        None | Some(1) => None,
        Some(count) => {
            let built = rayon::ThreadPoolBuilder::new().num_threads(count).build();
            Some(built.map_err(|error| invalid("threads", "as many as the system can start", error))?)
        }
    };
    let mut alignments = Vec::with_capacity(pairs.len());
    let mut rest = &pairs[..];
    while !rest.is_empty() {
        let mut tokens = 0;
        let fits = |(a, b): &&(core::Tokens<'_>, core::Tokens<'_>)| {
            let before = tokens;
            tokens += a.len() + b.len();
            before < TOKENS_BETWEEN_SIGNALS
        };
        let (chunk, later) = rest.split_at(rest.iter().take_while(fits).count());
        rest = later;
        alignments.extend(py.detach(|| match &pool {
            Some(pool) => pool.install(|| core::align_batch(chunk, true)),
            None => core::align_batch(chunk, threads.is_none()),
        }));
        py.check_signals()?;
    }
    Ok(Some(alignments.into_iter().map(Alignment).collect()))
}

/// Carry costs (n, T′) of refined tokens to (n, max(lengths)) positions of the originals.
#[pyfunction]
fn charge<'py>(
    py: Python<'py>,
    costs: PyReadonlyArray2<'py, f64>,
    alignments: Vec<Bound<'py, Alignment>>,
    lengths: Vec<usize>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let costs = costs.as_array();
    let width = lengths.iter().copied().max().unwrap_or(0);
    let mut charges = vec![0.0; lengths.len() * width];
    for (index, (alignment, row)) in alignments.iter().zip(costs.rows()).enumerate() {
        let own = &mut charges[index * width..][..width];
        match row.as_slice() {
            Some(row) => alignment.get().0.charge(row, own),
            None => alignment.get().0.charge(&row.to_vec(), own),
        }
    }
    charges.into_pyarray(py).reshape([lengths.len(), width])
}

type Verdict<'py> = (Vec<&'static str>, Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i64>>);

/// Filter a batch of refinements. Returns reasons, representatives and weights.
#[pyfunction]
#[pyo3(signature = (*, rewards, refined_rewards, prompts, refined, accept, max_reward))]
fn filter_refinements<'py>(
    py: Python<'py>,
    rewards: PyReadonlyArray1<'py, f64>,
    refined_rewards: PyReadonlyArray1<'py, f64>,
    prompts: PyReadonlyArray1<'py, i64>,
    refined: &Bound<'py, PyList>,
    accept: &str,
    max_reward: Option<f64>,
) -> PyResult<Verdict<'py>> {
    let accept = match (accept, max_reward) {
        ("better", _) => core::Accept::Better,
        ("all", _) => core::Accept::All,
        ("perfect", Some(max_reward)) => core::Accept::Perfect { max_reward },
        _ => return Err(invalid("accept", "better, all, or perfect with a max_reward", accept)),
    };
    let kinds = "arrays of int32 or int64, lists or tuples";
    let held = Sequences::hold("refined", refined)?.ok_or_else(|| invalid("refined", kinds, refined))?;
    let tokens = held.tokens()?;
    let (rewards, refined_rewards, prompts) = (rewards.as_slice()?, refined_rewards.as_slice()?, prompts.as_slice()?);
    let filtered = py.detach(|| core::filter(rewards, refined_rewards, prompts, &tokens, accept));
    let reasons = filtered.reasons.into_iter().map(word).collect();
    Ok((
        reasons,
        filtered.representative.into_pyarray(py),
        filtered.weight.into_pyarray(py),
    ))
}

fn word(reason: core::Reason) -> &'static str {
    match reason {
        core::Reason::Empty => "empty",
        core::Reason::Masked => "masked",
        core::Reason::NotBetter => "not_better",
        core::Reason::NotPerfect => "not_perfect",
        core::Reason::Accepted => "accepted",
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Alignment>()?;
    module.add_function(wrap_pyfunction!(align, module)?)?;
    module.add_function(wrap_pyfunction!(charge, module)?)?;
    module.add_function(wrap_pyfunction!(integers::read_ints_directly, module)?)?;
    module.add_function(wrap_pyfunction!(filter_refinements, module)?)
}
