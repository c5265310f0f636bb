//! Tests of the command without the captioner, in one binary.

mod explain;
mod export_audit;
mod inspect;
mod refused;
#[path = "../../../../tests/core/support/mod.rs"]
mod support;
mod synth_cli;
