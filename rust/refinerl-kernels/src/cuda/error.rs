//! Errors of the driver and of a launch.

use std::fmt;

/// The reason why a kernel cannot run here, or why a launch failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// NVRTC was missing when the crate was built.
    BuiltWithout(String),
    /// There is no driver library, or it lacks an entry point. Holds the loader's message.
    NoDriver(String),
    /// The driver finds no device.
    NoDevice,
    /// The driver supports CUDA up to this version (1000·major + 10·minor), older than the images need.
    DriverTooOld(i32),
    /// No embedded image runs on this compute capability.
    NoImage {
        /// The device's compute capability.
        capability: (u32, u32),
        /// The names of the embedded images.
        embedded: String,
    },
    /// The caller named a device that does not exist.
    UnknownDevice(i32),
    /// An argument is out of the kernel's range. Holds its name and its rule.
    BadArgument(String),
    /// An entry point failed.
    Failed {
        /// The entry point and its object.
        action: String,
        /// The error's name, such as CUDA_ERROR_ILLEGAL_ADDRESS.
        name: String,
        /// The driver's description of the error.
        description: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltWithout(reason) => write!(f, "built without the CUDA compiler ({reason})"),
            Self::NoDriver(reason) => write!(f, "no CUDA driver library ({reason})"),
            Self::NoDevice => write!(f, "the CUDA driver finds no device"),
            Self::DriverTooOld(version) => write!(
                f,
                "the driver supports CUDA {}.{} and the kernels need 12.0: install driver 525 or newer",
                version / 1000,
                version % 1000 / 10
            ),
            Self::NoImage { capability, embedded } => write!(
                f,
                "no kernels for compute capability {}.{}, only {embedded}",
                capability.0, capability.1
            ),
            Self::UnknownDevice(ordinal) => write!(f, "there is no CUDA device {ordinal}"),
            Self::BadArgument(rule) => write!(f, "{rule}"),
            Self::Failed {
                action,
                name,
                description,
            } => write!(f, "{action} failed: {name} ({description})"),
        }
    }
}

impl std::error::Error for Error {}
