//! The CUDA driver's library: the entry points that a launch needs, and the unsafe code that calls them.

use std::ffi::{c_char, c_int, c_uint, c_void, CStr, CString};
use std::ptr;
use std::sync::OnceLock;

use libloading::Library;

use super::error::Error;

const LIBRARY: &str = "libcuda.so.1";
const NO_DEVICE: c_int = 100;
const CAPABILITY_MAJOR: c_int = 75;
const CAPABILITY_MINOR: c_int = 76;
const SHARED_PER_BLOCK_OPTIN: c_int = 97;
const MAX_DYNAMIC_SHARED: c_int = 8;

/// An address in the memory of a device, 0 for none.
pub type Address = u64;

/// A stream, as `torch.cuda.Stream.cuda_stream` gives it; 0 is the default stream.
pub type Stream = u64;

type Status = c_int;

/// Declare the table of entry points, and its function that loads them by name.
macro_rules! entry_points {
    ($($field:ident = $symbol:literal ( $($argument:ty),* );)*) => {
        struct EntryPoints { $($field: unsafe extern "C" fn($($argument),*) -> Status,)* }

        impl EntryPoints {
            fn find(library: &Library) -> Result<Self, libloading::Error> {
                // SAFETY: the types are those of cuda.h for these symbols; they are copied out of the library, which
                // `Driver` keeps open.
                unsafe { Ok(Self { $($field: *library.get($symbol.as_bytes())?,)* }) }
            }
        }
    };
}

entry_points! {
    init = "cuInit"(c_uint);
    version = "cuDriverGetVersion"(*mut c_int);
    error_name = "cuGetErrorName"(Status, *mut *const c_char);
    error_string = "cuGetErrorString"(Status, *mut *const c_char);
    device_count = "cuDeviceGetCount"(*mut c_int);
    device = "cuDeviceGet"(*mut c_int, c_int);
    device_attribute = "cuDeviceGetAttribute"(*mut c_int, c_int, c_int);
    retain_context = "cuDevicePrimaryCtxRetain"(*mut *mut c_void, c_int);
    push_context = "cuCtxPushCurrent_v2"(*mut c_void);
    pop_context = "cuCtxPopCurrent_v2"(*mut *mut c_void);
    load_module = "cuModuleLoadDataEx"(*mut *mut c_void, *const c_void, c_uint, *mut c_int, *mut *mut c_void);
    function = "cuModuleGetFunction"(*mut *mut c_void, *mut c_void, *const c_char);
    set_function_attribute = "cuFuncSetAttribute"(*mut c_void, c_int, c_int);
    launch = "cuLaunchKernel"(
        *mut c_void, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, *mut c_void, *mut *mut c_void,
        *mut *mut c_void
    );
}

/// The driver, opened and initialised.
pub struct Driver {
    entry: EntryPoints,
    version: c_int,
    devices: c_int,
    _library: Library,
}

/// A handle of the driver's. It is only passed back to the driver, which is safe from any thread.
#[derive(Clone, Copy)]
pub struct Handle(*mut c_void);
// SAFETY: the driver's contexts, modules and functions may be used from every thread of the process.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// One argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub enum Argument {
    Address(Address),
    Long(i64),
    Int(i32),
    Float(f32),
}

impl Argument {
    /// A word that begins with the bytes that the kernel reads: devices and their hosts are little-endian.
    fn word(self) -> u64 {
        match self {
            Self::Address(address) => address,
            Self::Long(value) => value as u64,
            Self::Int(value) => u64::from(value as u32),
            Self::Float(value) => u64::from(value.to_bits()),
        }
    }
}

/// The shape of a launch: blocks, threads of a block, and bytes of dynamic shared memory of a block.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub blocks: u32,
    pub threads: u32,
    pub shared: u32,
}

impl Driver {
    /// The driver of this process. The first call opens it; its outcome is kept, also where it failed.
    pub fn get() -> Result<&'static Self, Error> {
        static DRIVER: OnceLock<Result<Driver, Error>> = OnceLock::new();
        DRIVER.get_or_init(Self::open).as_ref().map_err(Clone::clone)
    }

    fn open() -> Result<Self, Error> {
        let missing = |error: libloading::Error| {
            let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
            Error::NoDriver(format!("{error}{cause}"))
        };
        // SAFETY: the library is meant to be opened like this; its initialisers do nothing until cuInit.
        let library = unsafe { Library::new(LIBRARY) }.map_err(missing)?;
        let mut driver = Self {
            entry: EntryPoints::find(&library).map_err(missing)?,
            version: 0,
            devices: 0,
            _library: library,
        };
        let (mut version, mut devices) = (0, 0);
        // SAFETY: cuInit takes no pointer; the other two write one integer.
        let (asked, started, counted) = unsafe {
            (
                (driver.entry.version)(&mut version),
                (driver.entry.init)(0),
                (driver.entry.device_count)(&mut devices),
            )
        };
        driver.check(asked, || "cuDriverGetVersion".into())?;
        if started == NO_DEVICE {
            return Err(Error::NoDevice);
        }
        driver.check(started, || "cuInit".into())?;
        driver.check(counted, || "cuDeviceGetCount".into())?;
        if devices == 0 {
            return Err(Error::NoDevice);
        }
        (driver.version, driver.devices) = (version, devices);
        Ok(driver)
    }

    /// The newest CUDA version that the driver supports: 1000·major + 10·minor.
    pub fn version(&self) -> i32 {
        self.version
    }

    pub fn devices(&self) -> i32 {
        self.devices
    }

    /// Compute capability, and most bytes of shared memory of a block.
    pub fn properties(&self, ordinal: i32) -> Result<((u32, u32), u32), Error> {
        let device = self.device(ordinal)?;
        let attribute = |which| {
            let mut value = 0;
            // SAFETY: writes one integer.
            let status = unsafe { (self.entry.device_attribute)(&mut value, which, device) };
            self.check(status, || format!("cuDeviceGetAttribute of device {ordinal}"))?;
            Ok::<_, Error>(value.unsigned_abs())
        };
        let capability = (attribute(CAPABILITY_MAJOR)?, attribute(CAPABILITY_MINOR)?);
        Ok((capability, attribute(SHARED_PER_BLOCK_OPTIN)?))
    }

    fn device(&self, ordinal: i32) -> Result<c_int, Error> {
        if !(0..self.devices).contains(&ordinal) {
            return Err(Error::UnknownDevice(ordinal));
        }
        let mut device = 0;
        // SAFETY: writes one integer.
        let status = unsafe { (self.entry.device)(&mut device, ordinal) };
        self.check(status, || format!("cuDeviceGet of device {ordinal}"))?;
        Ok(device)
    }

    /// Retain the primary context of a device, which PyTorch uses too. It is kept for the life of the process.
    pub fn context(&self, ordinal: i32) -> Result<Handle, Error> {
        let device = self.device(ordinal)?;
        let mut context = ptr::null_mut();
        // SAFETY: writes one handle.
        let status = unsafe { (self.entry.retain_context)(&mut context, device) };
        self.check(status, || format!("cuDevicePrimaryCtxRetain of device {ordinal}"))?;
        Ok(Handle(context))
    }

    /// Load an image into a context.
    pub fn load(&self, context: Handle, image: &[u8], name: &str) -> Result<Handle, Error> {
        // The driver reads an image as 64-bit words, and embedded bytes are not aligned.
        let mut words = vec![0_u64; image.len().div_ceil(8)];
        for (word, bytes) in words.iter_mut().zip(image.chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(padded);
        }
        let mut module = ptr::null_mut();
        let status = self.within(context, || {
            let none = ptr::null_mut();
            // SAFETY: the image is whole and outlives the call, which copies it; there are no options.
            unsafe { (self.entry.load_module)(&mut module, words.as_ptr().cast(), 0, ptr::null_mut(), none) }
        })?;
        self.check(status, || format!("cuModuleLoadDataEx of {name}"))?;
        Ok(Handle(module))
    }

    /// Look up a kernel of a module by name.
    pub fn function(&self, context: Handle, module: Handle, name: &str) -> Result<Handle, Error> {
        let symbol = CString::new(name).map_err(|_| Error::BadArgument("kernel names have no zero byte".into()))?;
        let mut function = ptr::null_mut();
        let status = self.within(context, || {
            // SAFETY: the module is loaded in this context and the name ends with a zero byte.
            unsafe { (self.entry.function)(&mut function, module.0, symbol.as_ptr()) }
        })?;
        self.check(status, || format!("cuModuleGetFunction of {name}"))?;
        Ok(Handle(function))
    }

    /// Allow the blocks of a kernel so many bytes of dynamic shared memory. The default is at most 48 KiB.
    pub fn allow_shared(&self, context: Handle, function: Handle, name: &str, bytes: u32) -> Result<(), Error> {
        let status = self.within(context, || {
            // SAFETY: the function is of this context.
            unsafe { (self.entry.set_function_attribute)(function.0, MAX_DYNAMIC_SHARED, bytes as c_int) }
        })?;
        self.check(status, || format!("cuFuncSetAttribute of {name}"))
    }

    /// Launch a kernel on a stream of its context.
    ///
    /// # Safety
    /// The arguments are those that the kernel declares, in order and type. Every address among them is 0 where the
    /// kernel allows it, or belongs to memory of the device that holds what the kernel reads and writes and that lives
    /// until the stream has passed the launch. The stream belongs to this context.
    pub unsafe fn launch(
        &self,
        context: Handle,
        function: Handle,
        name: &str,
        shape: Shape,
        stream: Stream,
        arguments: &[Argument],
    ) -> Result<(), Error> {
        let mut words: Vec<u64> = arguments.iter().map(|argument| argument.word()).collect();
        let mut places: Vec<*mut c_void> = words.iter_mut().map(|word| ptr::from_mut(word).cast()).collect();
        let status = self.within(context, || {
            // SAFETY: the driver copies the arguments before it returns; the rest is the caller's promise.
            unsafe {
                (self.entry.launch)(
                    function.0,
                    shape.blocks,
                    1,
                    1,
                    shape.threads,
                    1,
                    1,
                    shape.shared,
                    stream as usize as *mut c_void,
                    places.as_mut_ptr(),
                    ptr::null_mut(),
                )
            }
        })?;
        self.check(status, || {
            format!(
                "cuLaunchKernel of {name} ({} blocks of {} threads)",
                shape.blocks, shape.threads
            )
        })
    }

    /// Run `work` while the context is current on this thread, then make the previous one current again.
    fn within<R>(&self, context: Handle, work: impl FnOnce() -> R) -> Result<R, Error> {
        // SAFETY: the context is one that `context` retained.
        let pushed = unsafe { (self.entry.push_context)(context.0) };
        self.check(pushed, || "cuCtxPushCurrent".into())?;
        let result = work();
        let mut popped = ptr::null_mut();
        // SAFETY: writes one handle.
        let status = unsafe { (self.entry.pop_context)(&mut popped) };
        self.check(status, || "cuCtxPopCurrent".into())?;
        Ok(result)
    }

    fn check(&self, status: Status, action: impl FnOnce() -> String) -> Result<(), Error> {
        if status == 0 {
            return Ok(());
        }
        let describe = |entry: unsafe extern "C" fn(Status, *mut *const c_char) -> Status| {
            let mut text: *const c_char = ptr::null();
            // SAFETY: writes one pointer, to a string that lives as long as the driver, or null.
            let known = unsafe { entry(status, &mut text) } == 0 && !text.is_null();
            // SAFETY: as above.
            known.then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
        };
        Err(Error::Failed {
            action: action(),
            name: describe(self.entry.error_name).unwrap_or_else(|| format!("CUDA error {status}")),
            description: describe(self.entry.error_string).unwrap_or_else(|| "unknown to the driver".into()),
        })
    }
}
