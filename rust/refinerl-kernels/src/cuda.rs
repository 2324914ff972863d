//! The CUDA kernels of `cuda/`: embedded images, the driver opened at run time, launches on the caller's stream.
//!
//! Nothing is allocated on the device and nothing waits for it: a launch fails at once (bad configuration, driver
//! trouble), or its failure shows in whatever synchronises next, as with any other kernel of the stream.

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
