//! The programs load: the verifier accepts them, and says how much work that was.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    reason = "a test says what went wrong by failing; benches share helpers they do not all use"
)]

use std::sync::{Arc, Mutex};

use fqdn_ebpf_loader::{Config, Datapath, Program, Sizes};
use identity::LocalIdentities;

#[test]
fn the_verifier_accepts_both_programs() {
    let identities = Arc::new(Mutex::new(LocalIdentities::default()));
    let datapath = Datapath::load(&Sizes::for_one_workload(), &Config::default(), identities)
        .unwrap_or_else(|error| panic!("{error}"));
    for which in [Program::FromPod, Program::ToPod] {
        let walked = datapath.verified_instructions(which).unwrap().unwrap();
        println!("{which:?}: {walked} instructions verified");
        assert!(walked > 100 && walked < 900_000, "{walked}");
    }
}
