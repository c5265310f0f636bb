//! What the extension modules of the two Python packages have in common: exceptions, arguments, arrays, logs.

pub mod arguments;
pub mod array;
pub mod errors;
pub mod given;
pub mod interrupt;
pub mod log;
pub mod plain;
pub mod values;
