//! libjpeg-turbo behind [`Jpeg`]: a JPEG becomes RGB pixels, or an error that says why not.
//!
//! The pixels are those of libjpeg-turbo's own `djpeg -dct int`: accurate DCT, fancy upsampling, colours
//! by JFIF and Adobe markers; CMYK as PIL converts it. All of the project's `unsafe` for JPEG is here and
//! in `shim.c`. The library is built from source, linked statically, with SIMD or not at all.
//!
//! Damage is an error wherever it lies: premature end, bad codes, lost restart markers, bogus
//! progression, by the codes of the library's warnings; and what it does not notice, a component that
//! no scan holds, arithmetic-coded data cut short, and holes of zero bytes. Oddities that change no pixel are
//! not: bytes between segments, unknown versions of JFIF and Adobe markers, padding.

mod compress;

pub use compress::compress;

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

// Only linked: its functions are called by shim.c.
use turbojpeg_sys as _;

/// Part of a picture, in whole pixels.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Columns before it.
    pub left: u32,
    /// Rows above it.
    pub top: u32,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// Size at which a picture is decoded: its sides over this number, rounded up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scale {
    /// Its own size.
    #[default]
    Full,
    /// Half of it.
    Half,
    /// A quarter.
    Quarter,
    /// An eighth.
    Eighth,
}

impl Scale {
    /// All scales, the smallest picture first.
    pub const SMALLEST_FIRST: [Self; 4] = [Self::Eighth, Self::Quarter, Self::Half, Self::Full];

    /// 1, 2, 4 or 8.
    pub fn denominator(self) -> u32 {
        match self {
            Self::Full => 1,
            Self::Half => 2,
            Self::Quarter => 4,
            Self::Eighth => 8,
        }
    }

    /// A side of `length` pixels at this scale.
    pub fn of(self, length: u32) -> u32 {
        length.div_ceil(self.denominator())
    }
}

/// What decoding may cost, beyond its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes for the coefficients of pictures of several scans.
    pub memory: usize,
    /// Scans.
    pub scans: u16,
}

/// Why a JPEG is not decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Its data are damaged or cut short.
    Damaged(String),
    /// A side is longer than the library decodes: 65,500 pixels.
    TooLarge {
        /// Pixels in a row, by the header.
        width: u32,
        /// Rows, by the header.
        height: u32,
    },
    /// It would take more than the [`Limits`], or than there is.
    OverLimit(String),
    /// It is no JPEG, or of a kind that is not decoded.
    Unsupported(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { width, height } => {
                write!(f, "the header promises {width}x{height} pixels, more than 65500 to a side")
            }
            Self::Damaged(detail) | Self::OverLimit(detail) | Self::Unsupported(detail) => {
                f.write_str(detail)
            }
        }
    }
}

impl std::error::Error for Error {}

/// As in shim.c.
#[repr(C)]
struct RawHeader {
    width: u32,
    height: u32,
    scalable: i32,
}

/// The handle of shim.c.
#[repr(C)]
struct Handle {
    _opaque: [u8; 0],
}

// SAFETY: as defined in shim.c, which is compiled with this crate; the structs are `repr(C)` and equal.
unsafe extern "C" {
    fn tldr_jpeg_open(bytes: *const u8, length: usize, header: *mut RawHeader) -> *mut Handle;
    fn tldr_jpeg_start(
        handle: *mut Handle,
        denominator: c_uint,
        max_memory: usize,
        max_scans: c_int,
        region: *mut Region,
    ) -> c_int;
    fn tldr_jpeg_read(handle: *mut Handle, out: *mut u8, capacity: usize) -> c_int;
    fn tldr_jpeg_failure(handle: *const Handle, message: *mut *const c_char) -> c_int;
    fn tldr_jpeg_close(handle: *mut Handle);
}

/// A JPEG whose header was read. It is decoded once.
pub struct Jpeg<'a> {
    handle: NonNull<Handle>,
    header: RawHeader,
    /// The handle reads from them.
    bytes: PhantomData<&'a [u8]>,
}

impl fmt::Debug for Jpeg<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RawHeader { width, height, .. } = self.header;
        f.debug_struct("Jpeg").field("width", &width).field("height", &height).finish_non_exhaustive()
    }
}

impl Drop for Jpeg<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and nothing uses it after this.
        unsafe { tldr_jpeg_close(self.handle.as_ptr()) }
    }
}

impl<'a> Jpeg<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// No JPEG, a header that is damaged or of a kind that is not decoded.
    pub fn open(bytes: &'a [u8]) -> Result<Self, Error> {
        if bytes.is_empty() {
            return Err(Error::Unsupported("0 bytes".into()));
        }
        let mut header = RawHeader { width: 0, height: 0, scalable: 0 };
        // SAFETY: `bytes` are as long as said, and the lifetime of `Self` keeps them; `header` is
        // written before the call returns and not kept.
        let handle = unsafe { tldr_jpeg_open(bytes.as_ptr(), bytes.len(), &raw mut header) };
        let handle =
            NonNull::new(handle).ok_or_else(|| Error::OverLimit("no memory for a JPEG decoder".into()))?;
        let jpeg = Self { handle, header, bytes: PhantomData };
        jpeg.failure().map_or(Ok(jpeg), Err)
    }

    /// Pixels in a row.
    pub fn width(&self) -> u32 {
        self.header.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.header.height
    }

    /// Whether it can be decoded at less than [`Scale::Full`]: all but lossless JPEGs can.
    pub fn is_scalable(&self) -> bool {
        self.header.scalable != 0
    }

    /// Decodes at `scale` at least `region`, in pixels of the picture at that scale, to `out`, `u8` RGB,
    /// rows from the top. Returns the region that `out` holds: `region` and some columns beside it, or the whole
    /// picture where a part cannot be decoded to the pixels that it has in the whole.
    ///
    /// The data outside the region are checked for damage all the same.
    ///
    /// # Errors
    /// Damage, more than `limits`, a kind that is not decoded, a region that does not lie inside.
    /// `out` then holds nothing of use.
    pub fn decode(
        self,
        scale: Scale,
        region: Region,
        limits: &Limits,
        out: &mut Vec<u8>,
    ) -> Result<Region, Error> {
        let mut region = region;
        let handle = self.handle.as_ptr();
        // SAFETY: the handle is open and was not started before, as this takes `self`; `region` is not kept.
        let failed = unsafe {
            tldr_jpeg_start(
                handle,
                scale.denominator(),
                limits.memory,
                c_int::from(limits.scans),
                &raw mut region,
            )
        };
        if failed != 0 {
            return Err(self.failed());
        }
        // Every byte is written, so old contents need no clearing.
        out.resize(3 * region.width as usize * region.height as usize, 0);
        // SAFETY: the handle was started; `out` is as long as said.
        let failed = unsafe { tldr_jpeg_read(handle, out.as_mut_ptr(), out.len()) };
        if failed != 0 {
            return Err(self.failed());
        }
        Ok(region)
    }

    /// The error of a call that failed.
    fn failed(&self) -> Error {
        self.failure().unwrap_or_else(|| Error::Unsupported("the decoder failed".into()))
    }

    fn failure(&self) -> Option<Error> {
        let mut message = std::ptr::null();
        // SAFETY: the handle is open; `message` becomes a string with its end marked that lives as long,
        // and is copied here.
        let (kind, message) = unsafe {
            let kind = tldr_jpeg_failure(self.handle.as_ptr(), &raw mut message);
            (kind, CStr::from_ptr(message).to_string_lossy())
        };
        // As in shim.c.
        match kind {
            0 => None,
            1 => Some(Error::Damaged(message.into_owned())),
            2 => Some(Error::TooLarge { width: self.header.width, height: self.header.height }),
            3 => Some(Error::OverLimit(message.into_owned())),
            _ => Some(Error::Unsupported(message.into_owned())),
        }
    }
}
