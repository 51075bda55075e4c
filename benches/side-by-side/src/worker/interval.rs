//! Inserts that leave as much to replay as can be.

use crate::engine::{Engine, Writer};
use crate::population::Population;
use crate::protocol::{FillInterval, Interval};

/// Inserts between two looks at the log.
const LOOK_EVERY: u64 = 256;

/// Inserts new records until so many bytes have been written since the last checkpoint.
pub fn fill<E: Engine>(engine: &mut E, population: Population, request: FillInterval) -> anyhow::Result<Interval> {
    let (mut key, mut value) = (population.key_buffer(), population.value_buffer());
    let mut writer = engine.writer(request.batch)?;
    let mut inserted = 0;
    loop {
        population.key(request.first + inserted, &mut key);
        population.value(request.first + inserted, &mut value);
        writer.insert(&key, &value)?;
        inserted += 1;
        if inserted.is_multiple_of(LOOK_EVERY) {
            let payload = inserted * (population.key_bytes() + population.value_bytes());
            let bytes = E::bytes_since_checkpoint(&writer).unwrap_or(payload);
            if bytes >= request.bytes {
                writer.finish()?;
                return Ok(Interval { last: request.first + inserted - 1, bytes });
            }
        }
    }
}
