//! The order in which churn replaces records.

use crate::words::mix;

/// The order in which a round visits the slots: an affine permutation, another one in every round.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    slots: u64,
    factor: u64,
    start: u64,
}

impl Order {
    /// The order of a round over `slots` slots, at least one.
    #[must_use]
    pub fn new(slots: u64, seed: u64, round: u64) -> Self {
        let mut factor = mix(seed ^ round) % slots;
        while gcd(factor, slots) != 1 {
            factor = (factor + 1) % slots.max(2);
        }
        Order { slots, factor, start: mix(seed.wrapping_add(round)) % slots }
    }

    /// The slot of a visit, both below `slots`.
    #[inline]
    #[must_use]
    pub fn slot(&self, visit: u64) -> u64 {
        // The wide division is not needed below 2^32 slots.
        if self.slots <= 1 << 32 {
            ((visit * self.factor) % self.slots + self.start) % self.slots
        } else {
            let slot = (u128::from(visit) * u128::from(self.factor) + u128::from(self.start)) % u128::from(self.slots);
            u64::try_from(slot).unwrap_or_default()
        }
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_round_visits_every_slot_once() {
        for slots in [1, 2, 3, 7, 64, 100] {
            for round in 0..5 {
                let order = Order::new(slots, 9, round);
                let seen: HashSet<u64> = (0..slots).map(|visit| order.slot(visit)).collect();
                assert_eq!(seen, (0..slots).collect());
            }
        }
    }

    #[test]
    fn orders_of_many_slots_do_not_overflow() {
        let slots = (1 << 40) - 1;
        let order = Order::new(slots, 3, 5);
        let seen: HashSet<u64> = (slots - 1000..slots).map(|visit| order.slot(visit)).collect();
        assert_eq!(seen.len(), 1000);
        assert!(seen.iter().all(|&slot| slot < slots));
        let order = Order::new(1 << 32, 3, 5);
        assert_ne!(order.slot((1 << 32) - 1), order.slot((1 << 32) - 2));
    }
}
