//! Room for what is worked out of a value once and kept with it. It knows nothing of what it keeps.

use std::any::Any;
use std::fmt;
use std::sync::OnceLock;

/// Something made of the value that this lies in; no part of what that value is, so two memos are equal, and a
/// clone, which may be changed, begins without. Prints as nothing: it may hold a secret.
#[derive(Default)]
pub struct Memo(OnceLock<Box<dyn Any + Send + Sync>>);

impl Memo {
    /// What is kept, made at the first call. `None`: something of another type was made before.
    pub fn get_or_make<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Option<&T> {
        self.0.get_or_init(|| Box::new(make())).downcast_ref()
    }
}

impl Clone for Memo {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Memo {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Memo {}

impl fmt::Debug for Memo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Memo")
    }
}
