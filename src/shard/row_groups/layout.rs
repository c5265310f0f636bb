//! Which columns of a Parquet file hold images, captions and what else is known of a sample.

use std::sync::Arc;

use parquet::basic::{ConvertedType, LogicalType, Type as Physical};
use parquet::schema::types::{SchemaDescriptor, Type};

/// Names of columns that are taken for the image: bytes, or a struct with `bytes`, as Hugging Face datasets have it.
/// img2dataset names it by the format.
const IMAGES: [&str; 6] = ["image", "jpg", "png", "jpeg", "webp", "img"];

/// Names of columns that are taken for the caption where no `caption_key` names another, best first.
const CAPTIONS: [&str; 3] = ["caption", "text", "txt"];

/// Field of a struct that holds the bytes of an image.
const BYTES: &str = "bytes";

/// Columns that a message names.
const NAMED: usize = 32;

/// What a file's columns are to a sample.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// Name of the column with the image, with the field of a struct: `image.bytes`.
    pub(crate) image: String,
    /// Name of the column with the caption, where one has a name of [`CAPTIONS`].
    pub(crate) caption: Option<String>,
    /// Names of all columns, in words.
    pub(crate) columns: String,
    /// Number of the image's leaf column.
    pub(super) leaf: usize,
    /// Definition level of an image that is there.
    pub(super) present: i16,
    /// Columns that can be shown as json: all but those with bytes.
    pub(super) fields: Vec<Arc<Type>>,
}

impl Layout {
    /// # Errors
    /// No column holds images, or several might; in words, for a message's `found`.
    pub(super) fn of(schema: &SchemaDescriptor) -> Result<Self, String> {
        let all = schema.root_schema().get_fields();
        let names: Vec<&str> = all.iter().map(|field| field.name()).collect();
        let shown = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
        let columns = if names.len() > NAMED { format!("{shown}, ...") } else { shown };
        let leaves: Vec<(usize, String)> = (0..schema.num_columns())
            .filter(|&i| is_bytes(schema, i))
            .filter(|&i| match schema.column(i).path().parts() {
                [_] => true,
                [_, field] => field == BYTES,
                _ => false,
            })
            .map(|i| (i, schema.column(i).path().parts()[0].clone()))
            .collect();
        let named = IMAGES.iter().find_map(|name| leaves.iter().find(|(_, column)| column == name));
        let (leaf, _) = match (named, &leaves[..]) {
            (Some(found), _) | (None, [found]) => found.clone(),
            (None, []) => return Err(format!("columns {columns}, none of them with the bytes of images")),
            (None, several) => {
                let several: Vec<&str> = several.iter().map(|(_, column)| &**column).collect();
                return Err(format!(
                    "several columns that may hold images, none of them named image: {}",
                    several.join(", ")
                ));
            }
        };
        let column = schema.column(leaf);
        let is_caption = |wanted: &&&str| names.iter().any(|name| name.eq_ignore_ascii_case(wanted));
        let caption = CAPTIONS.iter().find(is_caption).and_then(|wanted| {
            names.iter().find(|name| name.eq_ignore_ascii_case(wanted)).map(|name| (*name).to_owned())
        });
        let first = &column.path().parts()[0];
        // Older writers did not mark text as such: bytes by the name of a caption are one.
        let is_shown = |field: &&Arc<Type>| {
            field.name() != first
                && (!has_bytes(field) || field.is_primitive() && caption.as_deref() == Some(field.name()))
        };
        let fields = all.iter().filter(is_shown).cloned().collect();
        let image = column.path().string();
        Ok(Self { image, caption, columns, leaf, present: column.max_def_level(), fields })
    }
}

/// Whether a leaf holds bytes that are not text, once a row.
fn is_bytes(schema: &SchemaDescriptor, leaf: usize) -> bool {
    let column = schema.column(leaf);
    column.max_rep_level() == 0
        && column.physical_type() == Physical::BYTE_ARRAY
        && column.converted_type() == ConvertedType::NONE
        && column.logical_type_ref().is_none()
}

/// Whether a column, or something in it, holds bytes that are not text.
fn has_bytes(field: &Type) -> bool {
    if field.is_group() {
        return field.get_fields().iter().any(|inner| has_bytes(inner));
    }
    let info = field.get_basic_info();
    let is_text =
        matches!(info.logical_type_ref(), Some(LogicalType::String | LogicalType::Json | LogicalType::Enum))
            || matches!(
                info.converted_type(),
                ConvertedType::UTF8 | ConvertedType::JSON | ConvertedType::ENUM
            );
    matches!(field.get_physical_type(), Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY)
        && !is_text
        && !matches!(info.converted_type(), ConvertedType::DECIMAL)
}
