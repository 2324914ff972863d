//! The CUDA kernels of `cuda/`: embedded images, the driver, which is opened at run time, and launches on the caller's
//! stream.
//!
//! Nothing is allocated on the device, and nothing waits for it. A launch fails at once (a bad configuration, a fault
//! of the driver), or its failure appears at the next synchronisation, as with any other kernel of the stream.

mod device;
#[allow(unsafe_code)]
mod driver;
pub mod epilogue;
mod error;
mod images;
mod item;

pub use device::{devices, load, DeviceReport};
pub use error::Error;
pub use images::{architectures, missing};
