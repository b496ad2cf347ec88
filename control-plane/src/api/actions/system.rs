//! What holds for all users of an owner.

pub mod get_settings;
pub mod update_settings;
mod view;
