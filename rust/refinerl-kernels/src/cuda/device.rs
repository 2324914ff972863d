//! Devices on which the kernels are loaded.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::driver::{Driver, Handle};
use super::error::Error;
use super::images::{self, IMAGES};
use super::item::Item;

/// The kernel that holds a row in dynamic shared memory.
pub const RESIDENT: &str = "fused_resident";

/// Kernels that exist for each type of logits, and kernels that exist once.
const TYPED: [&str; 3] = ["statistics", "fused", RESIDENT];
const UNTYPED: [&str; 1] = ["kept_rows"];

/// Bytes of shared memory that a kernel needs beside a row: its own variables, and the driver's share of each block.
const OWN_SHARED: u32 = 2048;

/// A kernel's name and the suffix for its type of logits, which may be empty: (`fused`, `_float32`).
pub type Name = (&'static str, &'static str);

/// A device of this process and the image that it runs.
#[derive(Clone, Debug)]
pub struct DeviceReport {
    /// Compute capability.
    pub capability: (u32, u32),
    /// The embedded image that runs on it, such as `sm_86`, or the reason why none does.
    pub image: Result<String, Error>,
}

/// List the devices that the driver shows. The error says why it shows none.
pub fn devices() -> Result<Vec<DeviceReport>, Error> {
    let driver = embedded_driver()?;
    let report = |ordinal| {
        let (capability, _) = driver.properties(ordinal)?;
        let image = images::choose(IMAGES, capability, driver.version());
        Ok(DeviceReport {
            capability,
            image: image.map(images::Image::name),
        })
    };
    (0..driver.devices()).map(report).collect()
}

/// Load the kernels on a device unless they are loaded. A launch then loads nothing, so a graph can capture it.
pub fn load(ordinal: i32) -> Result<(), Error> {
    Device::get(ordinal).map(|_| ())
}

fn embedded_driver() -> Result<&'static Driver, Error> {
    match images::missing() {
        Some(reason) => Err(Error::BuiltWithout(reason.into())),
        None => Driver::get(),
    }
}

/// A device on which an image is loaded.
pub struct Device {
    pub driver: &'static Driver,
    pub context: Handle,
    /// Most bytes of dynamic shared memory of a block.
    pub shared: u32,
    functions: HashMap<Name, Handle>,
}

impl Device {
    /// The device of this number. The first call loads its image; its outcome is kept, also where it failed.
    pub fn get(ordinal: i32) -> Result<&'static Self, Error> {
        static DEVICES: OnceLock<Vec<OnceLock<Result<Device, Error>>>> = OnceLock::new();
        let driver = embedded_driver()?;
        let slots = DEVICES.get_or_init(|| (0..driver.devices()).map(|_| OnceLock::new()).collect());
        let slot = usize::try_from(ordinal).ok().and_then(|place| slots.get(place));
        let slot = slot.ok_or(Error::UnknownDevice(ordinal))?;
        slot.get_or_init(|| Self::load(driver, ordinal))
            .as_ref()
            .map_err(Clone::clone)
    }

    fn load(driver: &'static Driver, ordinal: i32) -> Result<Self, Error> {
        let (capability, shared) = driver.properties(ordinal)?;
        let image = images::choose(IMAGES, capability, driver.version())?;
        let context = driver.context(ordinal)?;
        let module = driver.load(context, image.bytes, &image.name())?;
        let shared = shared.saturating_sub(OWN_SHARED);
        let mut functions = HashMap::new();
        let typed = TYPED
            .iter()
            .flat_map(|kernel| Item::ALL.map(|item| (*kernel, item.suffix())));
        for name in typed.chain(UNTYPED.map(|kernel| (kernel, ""))) {
            let full = [name.0, name.1].concat();
            let function = driver.function(context, module, &full)?;
            if name.0 == RESIDENT {
                driver.allow_shared(context, function, &full, shared)?;
            }
            functions.insert(name, function);
        }
        Ok(Self {
            driver,
            context,
            shared,
            functions,
        })
    }

    /// Look up a kernel by name, one of those above.
    pub fn function(&self, name: Name) -> Handle {
        self.functions[&name]
    }
}
