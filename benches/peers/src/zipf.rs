//! Zipfian choices, as YCSB makes them: after Gray et al., "Quickly Generating Billion-Record Synthetic Databases"
//! (SIGMOD 1994), with the ranks scattered over the records.

use crate::population::mix;

/// YCSB's constant.
pub const THETA: f64 = 0.99;

/// Chooses records: a few of them often, most of them hardly ever.
#[derive(Debug, Clone, Copy)]
pub struct Zipf {
    records: u64,
    seed: u64,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

impl Zipf {
    /// Takes time in proportion to the number of records.
    pub fn new(records: u64, seed: u64) -> Self {
        let zeta_of = |n: u64| (1..=n).map(|rank| (rank as f64).powf(-THETA)).sum::<f64>();
        let zeta = zeta_of(records);
        let alpha = 1.0 / (1.0 - THETA);
        let eta = (1.0 - (2.0 / records as f64).powf(1.0 - THETA)) / (1.0 - zeta_of(2) / zeta);
        Zipf { records, seed: mix(seed), zeta, alpha, eta }
    }

    /// A record's counter, below the number of records.
    pub fn record(&self, random: &mut fastrand::Rng) -> u64 {
        // Neighbours in rank are not neighbours in the order of insertion.
        mix(self.rank(random.f64()) ^ self.seed) % self.records
    }

    fn rank(&self, uniform: f64) -> u64 {
        let scaled = uniform * self.zeta;
        if scaled < 1.0 {
            0
        } else if scaled < 1.0 + 0.5_f64.powf(THETA) {
            1
        } else {
            let rank = self.records as f64 * (self.eta * uniform - self.eta + 1.0).powf(self.alpha);
            (rank as u64).min(self.records - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share of each of the first ranks is 1 / (rank^theta x zeta).
    #[test]
    fn ranks_are_as_frequent_as_they_should_be() {
        let zipf = Zipf::new(10_000, 1);
        let mut random = fastrand::Rng::with_seed(7);
        let draws = 400_000;
        let mut counts = vec![0_u64; 10_000];
        for _ in 0..draws {
            counts[zipf.rank(random.f64()) as usize] += 1;
        }
        for rank in [0, 1] {
            let share = ((rank + 1) as f64).powf(-THETA) / zipf.zeta;
            let found = counts[rank] as f64 / f64::from(draws);
            assert!((found / share - 1.0).abs() < 0.05, "rank {rank}: {found} for {share}");
        }
        // Half of all draws fall on the first few percent.
        let hot: u64 = counts[..300].iter().sum();
        assert!((0.55..0.75).contains(&(hot as f64 / f64::from(draws))), "{hot}");
    }

    #[test]
    fn few_records_are_no_trouble() {
        for records in [2, 3, 10] {
            let zipf = Zipf::new(records, 1);
            let mut random = fastrand::Rng::with_seed(1);
            assert!((0..10_000).all(|_| zipf.record(&mut random) < records));
        }
    }
}
