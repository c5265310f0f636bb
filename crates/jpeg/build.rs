//! Compiles the shims against the headers of the libjpeg-turbo that `turbojpeg-sys` built.

fn main() {
    println!("cargo::rerun-if-changed=src/shim.c");
    println!("cargo::rerun-if-changed=src/compress.c");
    let include = std::env::var("DEP_TURBOJPEG_INCLUDE").unwrap_or_else(|_| {
        panic!("turbojpeg-sys does not say where its headers are: unset TURBOJPEG_SOURCE, so that it builds its own")
    });
    let mut build = cc::Build::new();
    build.includes(include.split(',')).file("src/shim.c").file("src/compress.c");
    build.warnings_into_errors(false).compile("tldr_jpeg");
}
