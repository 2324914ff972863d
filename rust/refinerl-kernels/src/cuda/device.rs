//! A device with its kernels loaded.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::driver::{Driver, Handle};
use super::error::Error;
use super::images::{self, IMAGES};

/// The one kernel that holds a row in dynamic shared memory.
pub const RESIDENT: &str = "fused_resident";

/// What the kernels have of shared memory beside a row: their own variables, and what the driver keeps of each block.
const OWN_SHARED: u32 = 2048;

/// A kernel's name with the type of its logits, if it has one: (`fused`, `_float32`).
pub type Name = (&'static str, &'static str);

/// A device of this process and the image that it runs.
#[derive(Clone, Debug)]
pub struct DeviceReport {
    /// Compute capability.
    pub capability: (u32, u32),
    /// The embedded image that runs on it, such as `sm_86`, or why none does.
    pub image: Result<String, Error>,
}

/// All devices that the driver shows, or why it shows none.
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

/// Loads the kernels on a device, if they are not yet.
pub fn load(ordinal: i32) -> Result<(), Error> {
    Device::get(ordinal).map(|_| ())
}

fn embedded_driver() -> Result<&'static Driver, Error> {
    match images::missing() {
        Some(reason) => Err(Error::BuiltWithout(reason.into())),
        None => Driver::get(),
    }
}

/// A device whose image is loaded.
pub struct Device {
    pub driver: &'static Driver,
    pub context: Handle,
    /// The bytes of dynamic shared memory that one block can have.
    pub shared: u32,
    module: Handle,
    functions: Mutex<HashMap<Name, Handle>>,
}

impl Device {
    /// The device of this number; the first call loads its image, and the outcome stays.
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
        Ok(Self {
            driver,
            context,
            shared: shared.saturating_sub(OWN_SHARED),
            module: driver.load(context, image.bytes, &image.name())?,
            functions: Mutex::default(),
        })
    }

    /// A kernel by name, looked up once.
    pub fn function(&self, name: Name) -> Result<Handle, Error> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&function) = functions.get(&name) {
            return Ok(function);
        }
        let full = [name.0, name.1].concat();
        let function = self.driver.function(self.context, self.module, &full)?;
        if name.0 == RESIDENT {
            self.driver.allow_shared(self.context, function, &full, self.shared)?;
        }
        functions.insert(name, function);
        Ok(function)
    }
}
