//! Parquet files that hold images, as Hugging Face datasets have them: `image` (bytes, or a struct with `bytes`) beside
//! a caption and other columns. A row is a sample.

mod chunks;
mod layout;
mod reader;
mod row_json;

pub(super) use layout::Layout;
pub(super) use reader::{RowReader, Unread};
