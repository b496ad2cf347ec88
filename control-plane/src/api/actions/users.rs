//! People: accounts of an owner, seen flat.

pub mod add_user;
pub mod edit_user;
mod form;
pub mod get_user_limit_usage;
pub mod get_users;
pub mod remove_user;
mod view;
