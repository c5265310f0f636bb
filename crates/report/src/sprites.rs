//! Sheets of tiles, as JPEGs in `data:` URLs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tldr_loader::image::RgbImage;
use tldr_loader::{Error, Result};

use crate::pictures::SIDE;

/// Tiles in a row of a sheet, and rows.
pub(crate) const COLUMNS: usize = 10;
const ROWS: usize = 12;
/// Tiles on a sheet.
pub(crate) const ON_A_SHEET: usize = COLUMNS * ROWS;

/// The sheets of `tiles` at `quality`. Tile i is on sheet i / 120, in its upper left corner of the place
/// i % 120.
///
/// # Errors
/// No memory.
pub(crate) fn sheets(tiles: &[&RgbImage], quality: u8) -> Result<Vec<String>> {
    tiles.chunks(COLUMNS * ROWS).map(|tiles| sheet(tiles, quality)).collect()
}

fn sheet(tiles: &[&RgbImage], quality: u8) -> Result<String> {
    let (width, height) = (COLUMNS * SIDE, tiles.len().div_ceil(COLUMNS) * SIDE);
    let mut pixels = vec![128u8; 3 * width * height];
    for (at, tile) in tiles.iter().enumerate() {
        let (left, top) = (at % COLUMNS * SIDE, at / COLUMNS * SIDE);
        for (row, from) in tile.data.chunks_exact(3 * tile.width.max(1)).take(SIDE).enumerate() {
            let start = 3 * ((top + row) * width + left);
            let length = from.len().min(3 * SIDE);
            pixels[start..start + length].copy_from_slice(&from[..length]);
        }
    }
    let bytes = tldr_jpeg::compress(&pixels, width as u32, height as u32, quality)
        .map_err(|error| Error::io("make a sheet of pictures", std::io::Error::other(error)))?;
    Ok(format!("data:image/jpeg;base64,{}", STANDARD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tldr_loader::image::{DecodeOptions, decode};

    #[test]
    fn tiles_are_where_they_are_looked_for() {
        let colours: Vec<[u8; 3]> =
            (0..130u32).map(|i| [(i * 67 % 256) as u8, (i * 31 % 256) as u8, 90]).collect();
        let tiles: Vec<RgbImage> = colours
            .iter()
            .map(|colour| RgbImage { width: 96, height: 64, data: colour.repeat(96 * 64) })
            .collect();
        let sheets = sheets(&tiles.iter().collect::<Vec<_>>(), 90).unwrap();
        assert_eq!(sheets.len(), 2);
        for (at, colour) in colours.iter().enumerate() {
            let url = sheets[at / 120].strip_prefix("data:image/jpeg;base64,").unwrap();
            let mut sheet = RgbImage::default();
            decode(&STANDARD.decode(url).unwrap(), &DecodeOptions::default(), &mut sheet).unwrap();
            let (x, y) = (at % 120 % COLUMNS * SIDE + 48, at % 120 / COLUMNS * SIDE + 32);
            let pixel = &sheet.data[3 * (y * sheet.width + x)..][..3];
            assert!(pixel.iter().zip(colour).all(|(a, b)| a.abs_diff(*b) < 8), "{at}: {pixel:?} {colour:?}");
        }
    }
}
