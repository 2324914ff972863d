//! The embedded images of the kernels, and the choice of the one that a device runs.

use super::error::Error;

/// The oldest CUDA version, in the driver's notation, that loads cubins of CUDA 12: driver 525.
const OLDEST_DRIVER: i32 = 12_000;

/// The oldest CUDA version that loads PTX of NVRTC 12.9.
const OLDEST_FOR_PTX: i32 = 12_090;

/// The encoding of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Machine code: runs on devices of the same major capability and at least the same minor one.
    Cubin,
    /// Source for the driver's own compiler: runs on devices of at least this capability.
    Ptx,
}

/// All kernels for one architecture.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    pub form: Form,
    /// 10·major + minor.
    pub architecture: u32,
    pub bytes: &'static [u8],
}

impl Image {
    /// The image's name, such as `sm_80` or `compute_120`.
    pub fn name(&self) -> String {
        let prefix = match self.form {
            Form::Cubin => "sm",
            Form::Ptx => "compute",
        };
        format!("{prefix}_{}", self.architecture)
    }
}

include!(concat!(env!("OUT_DIR"), "/cuda/images.rs"));

/// The names of all embedded images.
pub fn architectures() -> Vec<String> {
    IMAGES.iter().map(Image::name).collect()
}

/// The reason why no image is embedded; None if there are images.
pub fn missing() -> Option<&'static str> {
    MISSING
}

/// Choose the image for a device of this compute capability under a driver of this CUDA version.
pub fn choose<'a>(images: &'a [Image], capability: (u32, u32), driver: i32) -> Result<&'a Image, Error> {
    if driver < OLDEST_DRIVER {
        return Err(Error::DriverTooOld(driver));
    }
    let device = 10 * capability.0 + capability.1;
    let runs = |image: &&'a Image| match image.form {
        Form::Cubin => image.architecture / 10 == capability.0 && image.architecture <= device,
        Form::Ptx => image.architecture <= device && driver >= OLDEST_FOR_PTX,
    };
    // Machine code is preferred to PTX, which the driver has to compile.
    let order = |image: &&Image| (image.form == Form::Cubin, image.architecture);
    images.iter().filter(runs).max_by_key(order).ok_or_else(|| {
        let names: Vec<_> = images.iter().map(Image::name).collect();
        Error::NoImage {
            capability,
            embedded: names.join(", "),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> Vec<Image> {
        let cubins = [80, 86, 89, 90, 100, 120].map(|architecture| (Form::Cubin, architecture));
        let all = cubins.into_iter().chain([(Form::Ptx, 120)]);
        all.map(|(form, architecture)| Image {
            form,
            architecture,
            bytes: b"",
        })
        .collect()
    }

    fn chosen(capability: (u32, u32), driver: i32) -> Option<String> {
        choose(&images(), capability, driver).ok().map(Image::name)
    }

    #[test]
    fn the_highest_cubin_of_the_same_major_that_is_not_above_the_device() {
        for (capability, name) in [
            ((8, 0), "sm_80"),
            ((8, 6), "sm_86"),
            ((8, 7), "sm_86"),
            ((8, 9), "sm_89"),
            ((9, 0), "sm_90"),
            ((10, 0), "sm_100"),
            ((10, 3), "sm_100"),
            ((12, 1), "sm_120"),
        ] {
            assert_eq!(chosen(capability, 12_000).as_deref(), Some(name));
        }
    }

    #[test]
    fn ptx_serves_devices_newer_than_all_cubins_under_drivers_that_can_compile_it() {
        assert_eq!(chosen((13, 0), 12_090).as_deref(), Some("compute_120"));
        assert_eq!(chosen((13, 0), 12_080), None);
    }

    #[test]
    fn older_devices_and_those_between_have_none_and_the_error_lists_what_there_is() {
        assert_eq!(chosen((7, 5), 13_000), None);
        assert_eq!(chosen((11, 0), 13_000), None);
        let error = choose(&images(), (7, 5), 13_000).unwrap_err().to_string();
        assert!(error.contains("7.5") && error.contains("sm_80, sm_86"), "{error}");
    }

    #[test]
    fn a_driver_before_cuda_12_is_too_old_whatever_the_device() {
        let error = choose(&images(), (8, 0), 11_080).unwrap_err();
        assert_eq!(error, Error::DriverTooOld(11_080));
        assert!(error.to_string().contains("11.8"));
    }

    #[test]
    fn this_build_embeds_every_architecture_or_says_why_none() {
        let names = architectures();
        if names.is_empty() {
            assert!(missing().is_some_and(|reason| !reason.is_empty()));
        } else {
            assert_eq!(names.len(), 7);
            assert_eq!(missing(), None);
            for image in IMAGES.iter().filter(|image| image.form == Form::Cubin) {
                assert!(image.bytes.starts_with(b"\x7fELF"));
            }
        }
    }
}
