//! Tells the module how it is compiled.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let level = std::env::var("OPT_LEVEL").unwrap_or_default();
    println!("cargo:rustc-env=TLDR_OPT_LEVEL={level}");
}
