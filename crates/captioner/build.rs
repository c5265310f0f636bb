//! Links libtorch into the binaries, tests and examples of this package so that they run
//! without `LD_LIBRARY_PATH` and can see a GPU.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Set by torch-sys (a direct dependency for this reason) to the folder of libtorch.so.
    let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") else {
        return; // torch-sys was not built, for documentation
    };
    // For the build scripts of crates that make binaries of this one.
    println!("cargo::metadata=libtorch={lib}");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    println!("cargo:rustc-env=TLDR_TORCH={}", torch_version(&lib));
    if std::path::Path::new(&lib).join("libtorch_cuda.so").exists() {
        // Nothing refers to libtorch_cuda by symbol: without this the linker drops it, and with
        // it the CUDA backend.
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
        println!("cargo:rustc-link-arg=-ltorch_cuda");
        println!("cargo:rustc-link-arg=-ltorch");
    }
}

/// The version of the libtorch in `lib`, as PyPI's packages and the plain archives say it.
fn torch_version(lib: &str) -> String {
    let root = std::path::Path::new(lib).parent().unwrap_or(std::path::Path::new("."));
    let python = std::fs::read_to_string(root.join("version.py")).unwrap_or_default();
    let quoted = python.lines().find_map(|line| line.strip_prefix("__version__ = "));
    let plain = std::fs::read_to_string(root.join("build-version")).unwrap_or_default();
    let version = quoted.unwrap_or(&plain).trim().trim_matches('\'');
    if version.is_empty() { "of unknown version".into() } else { version.into() }
}
