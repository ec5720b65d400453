//! Every target on random inputs for a moment: what a corpus does not hold yet.
//!
//! In:  a fixed seed, so that a failure is there the next time; the corpora, for changed copies.
//! Out: a failure that prints the input as a test or a corpus file can hold it.
//! Not here: a real search (`fuzz/libfuzzer`).
//!
//! `FUZZ_SECONDS` and `FUZZ_SEED` make it longer and different.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says what went wrong by failing"
)]

mod corpus;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use fuzz::{TARGETS, Target};
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

/// For each target.
const MILLISECONDS: u64 = 500;
/// However fast the machine is.
const MOST_RUNS: u64 = 20_000;
/// However slow it is.
const FEWEST_RUNS: u64 = 20;

fn explore((name, target): Target) {
    let setting = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let seconds: Option<u64> = setting("FUZZ_SECONDS");
    let span = seconds.map_or(Duration::from_millis(MILLISECONDS), Duration::from_secs);
    let most = if seconds.is_some() {
        u64::MAX
    } else {
        MOST_RUNS
    };
    let seed = setting("FUZZ_SEED").unwrap_or(1);
    let mut random = StdRng::seed_from_u64(seed);
    let corpus: Vec<Vec<u8>> = corpus::files(name).into_iter().map(|(_, b)| b).collect();
    let start = Instant::now();
    let mut runs = 0;
    while runs < FEWEST_RUNS || (runs < most && start.elapsed() < span) {
        let data = input(&mut random, &corpus);
        if fails(target, &data) {
            let data = smaller(target, data);
            let file = std::env::temp_dir().join(format!("fuzz-{name}-{seed}-{runs}"));
            std::fs::write(&file, &data).unwrap();
            println!("{name} fails on {}: {data:?}", file.display());
            return target(&data);
        }
        runs += 1;
    }
    println!("{name}: {runs} inputs in {:.1?}", start.elapsed());
}

fn fails(target: fn(&[u8]), data: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| target(data))).is_err()
}

/// The same failure, or another one, with fewer bytes.
fn smaller(target: fn(&[u8]), mut data: Vec<u8>) -> Vec<u8> {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut chunk = data.len();
    while chunk > 0 {
        let mut at = 0;
        while at < data.len() {
            let end = data.len().min(at + chunk);
            let without = [&data[..at], &data[end..]].concat();
            if fails(target, &without) {
                data = without;
            } else {
                at = end;
            }
        }
        chunk /= 2;
    }
    std::panic::set_hook(quiet);
    data
}

/// Random bytes, or a corpus file with changes.
fn input(random: &mut StdRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let Some(seed) = corpus.choose(random).filter(|_| random.random_ratio(3, 4)) else {
        let mut data = vec![0; random.random_range(0..700)];
        random.fill_bytes(&mut data);
        return data;
    };
    let mut data = seed.clone();
    for _ in 0..random.random_range(1..8) {
        let at = random.random_range(0..=data.len());
        match random.random_range(0..5) {
            0 => data.truncate(at),
            1 => data.insert(at, random.random()),
            2 => {
                // Another input's end: choices that stand behind are made as there.
                let other = corpus.choose(random).map_or(&[][..], |c| c);
                let from = random.random_range(0..=other.len());
                data.truncate(at);
                data.extend(&other[from..]);
            }
            3 if !data.is_empty() => {
                let (at, bit) = (at % data.len(), random.random_range(0..8));
                data[at] ^= 1 << bit;
            }
            _ if !data.is_empty() => {
                let at = at % data.len();
                data[at] = random.random();
            }
            _ => {}
        }
    }
    data.truncate(4096);
    data
}

macro_rules! explored {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            let name = stringify!($name);
            explore(*TARGETS.iter().find(|(n, _)| *n == name).unwrap());
        })*

        #[test]
        fn every_target_is_explored() {
            let named = [$(stringify!($name)),*];
            assert_eq!(TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>(), named);
        }
    };
}

explored! {
    answer_acceptance
    event_decode
    journal_replay
    ledger_vs_reference
    packet_path
    pattern_vs_regex
    policy_parse
    policy_vs_reference
    selector_parse
    tcp_framing
    verdict_vs_reference
    wire_decode
}
