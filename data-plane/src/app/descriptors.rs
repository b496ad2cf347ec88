//! File descriptors: a proxy needs two per connection, and the usual limit is far below what it may use.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For the spool, listeners, Redis, the control plane and logs.
const OWN: u64 = 256;

/// Raises the soft limit to the hard one.
pub(super) fn raise() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        tracing::warn!(%error, "the limit of file descriptors cannot be raised");
    }
}

/// Says so when the limit is too low for `max_connections`. For a proxy that starts: one that does not says one thing,
/// why.
pub(super) fn warn(max_connections: usize) {
    let have = getrlimit(Resource::Nofile).current;
    let wanted = wanted(max_connections);
    if let Some(have) = have.filter(|have| *have < wanted) {
        tracing::warn!(
            have,
            wanted,
            "too few file descriptors for MAX_CONNECTIONS: raise the limit (ulimit -n) or lower MAX_CONNECTIONS"
        );
    }
}

/// A caller's connection and an upstream's, each.
fn wanted(max_connections: usize) -> u64 {
    (max_connections as u64).saturating_mul(2).saturating_add(OWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(wanted(20_000), 40_256);
    }
}
