//! RGB pixels to a JPEG: for pages that show pictures, not on the path of the data.

use std::ffi::c_int;

use crate::Error;

unsafe extern "C" {
    fn tldr_jpeg_compress(
        pixels: *const u8,
        width: u32,
        height: u32,
        quality: c_int,
        out: *mut *mut u8,
        size: *mut usize,
    ) -> c_int;
    fn tldr_jpeg_free(out: *mut u8);
}

/// Compresses `pixels`, `u8` RGB `[height, width, 3]`, to a baseline JPEG of `quality` in 1 to 100. The same bytes for
/// the same pixels.
///
/// # Errors
/// Pixels that are not `3 * width * height`; a side of 0, or longer than a JPEG has; no memory.
pub fn compress(pixels: &[u8], width: u32, height: u32, quality: u8) -> Result<Vec<u8>, Error> {
    let expected = 3 * u64::from(width) * u64::from(height);
    if expected == 0 || pixels.len() as u64 != expected {
        let found = pixels.len();
        return Err(Error::Unsupported(format!(
            "{width}x{height} pixels, {expected} bytes, and {found} were given"
        )));
    }
    let (mut out, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: `pixels` are as long as the sides say; `out` and `size` are written before the call returns and not kept.
    let failed = unsafe {
        tldr_jpeg_compress(
            pixels.as_ptr(),
            width,
            height,
            c_int::from(quality.clamp(1, 100)),
            &raw mut out,
            &raw mut size,
        )
    };
    let bytes = if failed == 0 && !out.is_null() {
        // SAFETY: the call wrote `size` bytes at `out`, which lives until it is freed below.
        Ok(unsafe { std::slice::from_raw_parts(out, size) }.to_vec())
    } else {
        Err(Error::TooLarge { width, height })
    };
    // SAFETY: `out` is null, or of malloc by the library, and freed once.
    unsafe { tldr_jpeg_free(out) };
    bytes
}
