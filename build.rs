//! Links libtorch into the binaries, tests and examples of this package so that they run
//! without `LD_LIBRARY_PATH` and can see a GPU.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Set by torch-sys (a direct dependency for this reason) to the folder of libtorch.so.
    let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") else {
        return; // built without the `tch` feature
    };
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    if std::path::Path::new(&lib).join("libtorch_cuda.so").exists() {
        // Nothing refers to libtorch_cuda by symbol: without this the linker drops it, and with
        // it the CUDA backend.
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
        println!("cargo:rustc-link-arg=-ltorch_cuda");
        println!("cargo:rustc-link-arg=-ltorch");
    }
}
