//! Counters that several threads raise, of two kinds in one store: numbers, and a struct that is read in place.
//!
//!     cargo run --features zerocopy --example counters

use std::borrow::Cow;

use tophash::codec::{Fixed, Schema};
use tophash::{Options, Result, SyncPolicy};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const THREADS: u64 = 4;
const CALLS: u64 = 2_000;

/// What a service counts for each of its routes.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Route {
    calls: u64,
    errors: u64,
    /// The longest call in microseconds.
    longest: u64,
}

impl Schema for Route {
    const VERSION: u16 = 1;

    fn name() -> Cow<'static, str> {
        "route".into()
    }
}

fn main() -> Result<()> {
    let path = std::env::temp_dir().join(format!("tophash-example-counters-{}", std::process::id()));
    let store = Options::new().sync(SyncPolicy::Manual).open(&path)?;
    let visits = store.table_of::<str, u64>("visits")?;
    let routes = store.table_of::<str, Fixed<Route>>("routes")?;

    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (visits, routes) = (&visits, &routes);
                scope.spawn(move || -> Result<()> {
                    for n in 0..CALLS {
                        let route = ["/", "/about", "/search"][(n % 3) as usize];
                        // No lock: if another thread was faster, the function runs again.
                        visits.update(route, |count| Some(count.unwrap_or(0) + 1))?;
                        routes.update(route, |route| {
                            let mut route = route.unwrap_or_default();
                            route.calls += 1;
                            route.errors += u64::from(n % 100 == 0);
                            route.longest = route.longest.max(thread * 1_000 + n % 500);
                            Some(route)
                        })?;
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a thread that does not panic"))
    })?;

    let total: u64 = visits.values().sum::<Result<u64>>()?;
    assert_eq!(total, THREADS * CALLS);
    for route in visits.keys() {
        let route = route?;
        // In place: the fields that are not asked for are not copied.
        let (calls, errors) = routes.read(&route, |route| (route.calls, route.errors))?.unwrap_or_default();
        assert_eq!(visits.get(&route)?, Some(calls));
        println!("{route:8} {calls:5} calls, {errors} errors");
    }
    store.close()?;
    let _ = std::fs::remove_dir_all(&path);
    Ok(())
}
