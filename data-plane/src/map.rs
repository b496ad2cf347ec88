//! The hash map of the hot path, for keys that no caller chooses: ids and names that an administrator or this program
//! gave. Its hash is seeded, but not made to hold against keys that somebody picks to collide; what callers choose
//! belongs into the map of the standard library.

/// Looked up many times per request; half the work of such a request's look-ups would be SipHash.
pub type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;
