//! One function for each kernel of `cuda/sequence_cross_entropy.cu`: its arguments in order, and its launch shape.
//!
//! Every function is unsafe for the same reason: its addresses must belong to memory of the named device that holds
//! what the kernel reads and writes, in the types that the kernel declares, and that lives until the stream has passed
//! the launch. The stream must belong to that device's primary context.

#![allow(unsafe_code)]

use super::device::{self, Device, Name};
use super::driver::{Address, Argument, Shape, Stream};
use super::error::Error;
pub use super::item::Item;
use Argument::{Address as Pointer, Float, Int, Long};

/// Threads of a block, as in `sequence_cross_entropy.cuh`.
const STREAMING: u32 = 512;
const RESIDENT: u32 = 1024;

/// The device and the stream that a kernel runs on.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The device's number in the driver and in PyTorch.
    pub device: i32,
    /// `torch.cuda.Stream.cuda_stream`, 0 for the default one.
    pub stream: Stream,
}

/// Rows of logits and their targets.
#[derive(Clone, Copy, Debug)]
pub struct Logits {
    /// The type of the logits.
    pub item: Item,
    /// The address of the first item, a multiple of the item's size.
    pub address: Address,
    /// Number of rows; each takes a block.
    pub rows: i64,
    /// Distance from one row to the next, in items.
    pub stride: i64,
    /// Length of a row, in items.
    pub length: i64,
    /// The address of the targets, an int64 for each row.
    pub targets: Address,
    /// The factor of every logit.
    pub scale: f32,
}

/// The addresses of the results, a float32 for each row.
#[derive(Clone, Copy, Debug)]
pub struct Results {
    /// −log p[target] in nats.
    pub nll: Address,
    /// The entropy in nats.
    pub entropy: Address,
}

impl Logits {
    /// The first arguments of every epilogue.
    fn arguments(&self) -> Result<[Argument; 5], Error> {
        // Indices within a row have 32 bits, and the width of a block may be added to the last one.
        let length = match i32::try_from(self.length) {
            Ok(length) if (1..=i32::MAX - (1 << 16)).contains(&length) => length,
            _ => {
                let rule = format!("logits must have rows of 1 to 2**31 - 2**16 items, got {}", self.length);
                return Err(Error::BadArgument(rule));
            }
        };
        Ok([
            Pointer(self.address),
            Long(self.stride),
            Int(length),
            Pointer(self.targets),
            Float(self.scale),
        ])
    }
}

/// Compute nll and entropy of each row.
///
/// # Safety
/// As the module says.
pub unsafe fn statistics(place: Place, logits: &Logits, results: Results) -> Result<(), Error> {
    let rest = [results.nll, results.entropy].map(Pointer);
    let arguments = [&logits.arguments()?[..], &rest[..]].concat();
    let name = ("statistics", logits.item.suffix());
    // SAFETY: the caller's promise; the arguments are the kernel's.
    unsafe { launch(place, name, rows(logits.rows)?, STREAMING, &arguments) }
}

/// Compute nll and entropy, and overwrite the logits with weight·∂nll + tilt·∂entropy. An address of 0 for `tilts`
/// means none. Rows that fit into the shared memory of a block are read once, others twice.
///
/// # Safety
/// As the module says.
pub unsafe fn fused(
    place: Place,
    logits: &Logits,
    weights: Address,
    tilts: Address,
    results: Results,
) -> Result<(), Error> {
    let rest = [weights, tilts, results.nll, results.entropy].map(Pointer);
    let arguments = [&logits.arguments()?[..], &rest[..]].concat();
    let blocks = rows(logits.rows)?;
    let suffix = logits.item.suffix();
    // Up to a pack more, because the copy is aligned like the row.
    let needed = logits.length * logits.item.bytes() + 16;
    if blocks == 0 {
        return Ok(());
    }
    let device = Device::get(place.device)?;
    let (name, threads, shared) = match u32::try_from(needed) {
        Ok(shared) if shared <= device.shared => ((device::RESIDENT, suffix), RESIDENT, shared),
        _ => (("fused", suffix), STREAMING, 0),
    };
    let shape = Shape {
        blocks,
        threads,
        shared,
    };
    // SAFETY: the caller's promise; the arguments are the kernel's.
    unsafe { launch_on(device, place.stream, name, shape, &arguments) }
}

/// Write the indices (int64) of the rows whose weight (float32) is not zero, in order, and their count (int64).
///
/// # Safety
/// As the module says.
pub unsafe fn kept_rows(
    place: Place,
    weights: Address,
    rows: i64,
    indices: Address,
    count: Address,
) -> Result<(), Error> {
    let arguments = [Pointer(weights), Long(rows), Pointer(indices), Pointer(count)];
    // SAFETY: the caller's promise; the arguments are the kernel's.
    unsafe { launch(place, ("kept_rows", ""), 1, RESIDENT, &arguments) }
}

/// The number of blocks, one for each row.
fn rows(count: i64) -> Result<u32, Error> {
    match u32::try_from(count) {
        Ok(count) if count <= i32::MAX as u32 => Ok(count),
        _ => Err(Error::BadArgument(format!("rows must be 0 to 2**31 - 1, got {count}"))),
    }
}

unsafe fn launch(place: Place, name: Name, blocks: u32, threads: u32, arguments: &[Argument]) -> Result<(), Error> {
    if blocks == 0 {
        return Ok(());
    }
    let shape = Shape {
        blocks,
        threads,
        shared: 0,
    };
    // SAFETY: the caller's promise.
    unsafe { launch_on(Device::get(place.device)?, place.stream, name, shape, arguments) }
}

unsafe fn launch_on(
    device: &Device,
    stream: Stream,
    name: Name,
    shape: Shape,
    arguments: &[Argument],
) -> Result<(), Error> {
    let function = device.function(name);
    let full = [name.0, name.1].concat();
    // SAFETY: the caller's promise; the context is the device's own.
    unsafe {
        device
            .driver
            .launch(device.context, function, &full, shape, stream, arguments)
    }
}
