//! What both planes agree on. Floor 0: prost, serde, uuid and decimals; no runtime, no HTTP types.
//!
//! `pb` is the wire form; everything else is the domain form. The step from one to the other happens
//! once, at the door, in `convert`, with an error that names the field.

pub mod convert;
pub mod ids;
pub mod money;
pub mod pattern;
pub mod private;
pub mod seal;
pub mod table;
pub mod usage;
pub mod window;

/// The generated wire types of `switchyard/v1/*.proto`.
pub mod pb {
    #![allow(
        missing_docs,
        clippy::all,
        clippy::allow_attributes_without_reason,
        reason = "generated code; the .proto files carry the documentation"
    )]
    tonic::include_proto!("switchyard.v1");
}

/// The table schema that this build reads and writes; a proxy says it in its `Hello`.
pub const TABLE_SCHEMA: u32 = 1;
