//! Connections whose callers have not shown a known key yet, by address: so many of one address are held and no more,
//! so that nobody takes all connections of this process without a credential. Bounded: an address without such a
//! connection is not remembered.

use super::Settings;
use crate::proxy::guard::network;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts, shared by all threads.
#[derive(Clone, Default)]
pub struct Strangers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection that counts; given back when dropped.
pub(super) struct Stranger {
    all: Strangers,
    address: IpAddr,
}

impl Strangers {
    /// Takes a seat for a connection from `address`; `None` when it has as many as `most`. 0: any number.
    pub(super) fn come(&self, address: IpAddr, most: usize) -> Option<Stranger> {
        let address = network(address);
        let mut counts = self.lock();
        let count = counts.entry(address).or_default();
        // An entry without connections is not kept, and `most` is not 0 here where it is refused.
        if most > 0 && *count >= most {
            return None;
        }
        *count += 1;
        Some(Stranger { all: self.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.lock().len()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut counts = self.all.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

impl Settings {
    /// A seat for a new connection, if its address may have one more.
    pub(super) fn stranger(&self, address: IpAddr) -> Option<Stranger> {
        self.strangers.come(address, self.strangers_per_address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_network_and_forgets() {
        let strangers = Strangers::default();
        let address = |text: &str| text.parse::<IpAddr>().expect("address");
        let first = strangers.come(address("2001:db8::1"), 2).expect("one");
        let second = strangers.come(address("2001:db8::2"), 2).expect("two");
        assert!(strangers.come(address("2001:db8::3"), 2).is_none(), "of one network");
        assert!(strangers.come(address("2001:db8:0:1::1"), 2).is_some(), "the neighbour");
        drop(first);
        assert!(strangers.come(address("2001:db8::3"), 2).is_some());
        drop(second);
        assert_eq!(strangers.len(), 0, "nobody is remembered");
        let all: Vec<_> = (0..10).map(|_| strangers.come(address("192.0.2.1"), 0)).collect();
        assert!(all.iter().all(Option::is_some), "0: any number");
    }
}
