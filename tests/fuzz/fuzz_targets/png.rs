//! Images, from seeds that are PNG.
#![no_main]

mod decoded;

libfuzzer_sys::fuzz_target!(|data: &[u8]| decoded::check(data));
