//! Compile `cuda/` to cubins and PTX with NVRTC, through `cuda/compile.py` and the Python of this build. If no Python
//! has NVRTC, the crate is built without CUDA, and reports that at run time.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The exit code of `compile.py` if it finds no NVRTC.
const NO_COMPILER: i32 = 3;

fn main() {
    let source = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../../cuda");
    let out = Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("cuda");
    for name in [
        "compile.py",
        "device.cuh",
        "sequence_cross_entropy.cu",
        "sequence_cross_entropy.cuh",
    ] {
        println!("cargo:rerun-if-changed={}", source.join(name).display());
    }
    for name in ["PYO3_PYTHON", "VIRTUAL_ENV", "REFINERL_NVRTC"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    // Cargo keeps this folder between runs, and an image of an older source must not ship.
    let _ = fs::remove_dir_all(&out);
    fs::create_dir_all(&out).expect("OUT_DIR can be written");
    let compiled = compile(&source.join("compile.py"), &out);
    if let Err(reason) = &compiled {
        println!("cargo:warning=built without CUDA kernels: {reason}");
        // A file that never exists makes the next build try again, as NVRTC may be installed by then.
        println!("cargo:rerun-if-changed={}", out.join("never").display());
    }
    fs::write(out.join("images.rs"), listing(&out, compiled.err())).expect("OUT_DIR can be written");
}

/// Compile the images into `out`. The error says why no Python could; a source that does not compile ends the build.
fn compile(script: &Path, out: &Path) -> Result<(), String> {
    let mut reasons = Vec::new();
    for python in pythons() {
        let Ok(run) = Command::new(&python).arg(script).arg(out).output() else {
            continue;
        };
        let said = String::from_utf8_lossy(&run.stderr).trim().to_string();
        match run.status.code() {
            Some(0) => {
                let library = String::from_utf8_lossy(&run.stdout);
                println!("cargo:rerun-if-changed={}", library.trim());
                return Ok(());
            }
            Some(NO_COMPILER) => reasons.push(said),
            _ => panic!("cuda/ does not compile:\n{said}"),
        }
    }
    Err(reasons
        .into_iter()
        .next()
        .unwrap_or_else(|| "no Python to run NVRTC".to_string()))
}

fn pythons() -> Vec<PathBuf> {
    let named = env::var_os("PYO3_PYTHON").map(PathBuf::from);
    let environment = env::var_os("VIRTUAL_ENV").map(|folder| Path::new(&folder).join("bin/python"));
    let plain = Some(PathBuf::from("python3"));
    named.into_iter().chain(environment).chain(plain).collect()
}

/// The Rust source that embeds the images in `out`.
fn listing(out: &Path, reason: Option<String>) -> String {
    let mut images: Vec<(String, u32, PathBuf)> = Vec::new();
    for entry in fs::read_dir(out).expect("just made").flatten() {
        let path = entry.path();
        let number = |prefix: &str| path.file_stem()?.to_str()?.strip_prefix(prefix)?.parse().ok();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("cubin") => images.extend(number("sm_").map(|found| ("Cubin".to_string(), found, path.clone()))),
            Some("ptx") => images.extend(number("compute_").map(|found| ("Ptx".to_string(), found, path.clone()))),
            _ => {}
        }
    }
    images.sort();
    let mut text = format!("pub const MISSING: Option<&str> = {reason:?};\npub static IMAGES: &[Image] = &[\n");
    for (form, number, path) in images {
        let _ = writeln!(
            text,
            "    Image {{ form: Form::{form}, architecture: {number}, bytes: include_bytes!({path:?}) }},"
        );
    }
    text + "];\n"
}
