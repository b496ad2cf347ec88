//! A fixed set of header names, found in a few instructions however many they are: headers are looked at one by one,
//! on every request. Built when the program is compiled. Pure.

/// Many times the longest list, so that a seed without collisions is found at once.
const SLOTS: usize = 1024;
/// Of a hash, the bits that choose a slot.
const SHIFT: u32 = 32 - SLOTS.trailing_zeros();
/// An empty slot; no list is that long.
const FREE: u8 = u8::MAX;

/// Names in lower case, one slot for each.
pub struct Names {
    names: &'static [&'static str],
    seed: u32,
    slots: [u8; SLOTS],
}

impl Names {
    /// A list without repetitions. For constants: what cannot be built stops the compiler.
    pub const fn new(names: &'static [&'static str]) -> Self {
        assert!(names.len() < FREE as usize, "a list that long needs wider slots");
        let mut seed: u32 = 0x9e37_79b1;
        let mut tries = 0;
        loop {
            if let Some(slots) = place(names, seed) {
                return Self { names, seed, slots };
            }
            tries += 1;
            assert!(tries < 1000, "two names differ in none of the places that are hashed");
            seed = seed.wrapping_mul(0x2545_f491).wrapping_add(2);
        }
    }

    /// Whether `name`, in lower case, is one of them.
    #[inline]
    pub fn has(&self, name: &str) -> bool {
        let at = self.slots[slot(name.as_bytes(), self.seed)];
        self.names.get(at as usize).is_some_and(|found| *found == name)
    }

    /// The names themselves.
    pub fn all(&self) -> &'static [&'static str] {
        self.names
    }
}

const fn place(names: &[&str], seed: u32) -> Option<[u8; SLOTS]> {
    let mut slots = [FREE; SLOTS];
    let mut at = 0;
    while at < names.len() {
        let slot = slot(names[at].as_bytes(), seed);
        if slots[slot] != FREE {
            return None;
        }
        slots[slot] = at as u8;
        at += 1;
    }
    Some(slots)
}

/// By length and three letters; names of headers differ there.
const fn slot(name: &[u8], seed: u32) -> usize {
    let length = name.len();
    if length == 0 {
        return 0;
    }
    let (middle, last) = (name[length / 2], name[length - 1]);
    let early = name[length / 4];
    let word = u32::from_le_bytes([length as u8, early, middle, last]);
    let mixed = (word ^ (word >> 15)).wrapping_mul(seed);
    ((mixed ^ (mixed << 13)).wrapping_mul(seed) >> SHIFT) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_its_names_and_no_others() {
        static NAMES: Names = Names::new(&["a", "x-a", "x-b", "a-x", "server", "via", "x-request-id"]);
        for name in NAMES.all() {
            assert!(NAMES.has(name), "{name}");
        }
        for name in ["", "x", "b", "x-c", "servers", "serve", "Via", "x-request-ie", &"x".repeat(300)] {
            assert!(!NAMES.has(name), "{name}");
        }
    }
}
