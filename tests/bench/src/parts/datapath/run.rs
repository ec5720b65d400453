//! Nanoseconds per packet by BPF_PROG_TEST_RUN: the program alone, without a network around it.
//!
//! In:  a full engine.
//! Out: one table: established packets, and packets that open a flow.
//! Not here: what the network adds to it.

use std::net::Ipv4Addr;

use anyhow::{Context as _, ensure};
use fqdn_ebpf_loader::{Config, Program, Run};
use support::Netns;

use super::{
    engine::{BY_ADDRESS, BY_NAME, BY_PREFIX, Engine, PORT},
    frame::{self, ACK, SYN},
};
use crate::{
    options::Options,
    rounds::take_turns,
    table::{Bound, Table},
};

/// The loopback device of a network namespace.
const LO: u32 = 1;
/// TC_ACT_UNSPEC: hand on to the next program.
const NEXT: i32 = -1;
/// Runs in one call: few enough that most calls are over before the scheduler interferes.
const BATCH: u32 = 10_000;

const OUT: &str = "established, from the workload";
const BACK: &str = "established, to the workload";
const NEW_BY_NAME: &str = "new, peer known by name";
const NEW_BY_ADDRESS: &str = "new, peer with an identity";
const NEW_BY_PREFIX: &str = "new, peer within a prefix";

pub(super) fn nanoseconds(options: &Options) -> anyhow::Result<Table> {
    let netns = Netns::new("bench")?;
    netns.run(|| measured(options))?
}

fn measured(options: &Options) -> anyhow::Result<Table> {
    let engine = Engine::new(&Config::default(), LO)?;
    for peer in [BY_NAME, BY_ADDRESS, BY_PREFIX] {
        once(&engine, Program::FromPod, &frame::out(peer, PORT, SYN))?;
        once(&engine, Program::ToPod, &frame::back(peer, PORT, SYN | ACK))?;
    }
    let subjects = [OUT, BACK, NEW_BY_NAME, NEW_BY_ADDRESS, NEW_BY_PREFIX];
    let [rows] = take_turns(options, &subjects, |subject| {
        let new = |peer: Ipv4Addr| (Program::FromPod, frame::out(peer, PORT, SYN));
        let (program, frame) = match subject {
            OUT => (Program::FromPod, frame::out(BY_ADDRESS, PORT, ACK)),
            BACK => (Program::ToPod, frame::back(BY_ADDRESS, PORT, ACK)),
            NEW_BY_NAME => new(BY_NAME),
            NEW_BY_ADDRESS => new(BY_ADDRESS),
            _ => new(BY_PREFIX),
        };
        Ok([per_run(options, &engine, program, &frame)?])
    })?;
    let limit = Bound::AtMost(110.0);
    let thrice = Bound::AtMost(3.0);
    Ok(Table::new("Program run, full maps", "ns", rows)
        .against(OUT)
        .target(OUT, limit)
        .target(BACK, limit)
        .ratio_target(NEW_BY_NAME, OUT, thrice)
        .ratio_target(NEW_BY_ADDRESS, OUT, thrice)
        .ratio_target(NEW_BY_PREFIX, OUT, thrice))
}

/// Sends one packet, which must pass.
fn once(engine: &Engine, program: Program, frame: &[u8]) -> anyhow::Result<()> {
    run(engine, program, frame, 1).map(drop)
}

/// The median of as many calls as fit the time.
fn per_run(
    options: &Options,
    engine: &Engine,
    program: Program,
    frame: &[u8],
) -> anyhow::Result<f64> {
    let mut calls = Vec::new();
    let begun = std::time::Instant::now();
    while begun.elapsed() < options.slice || calls.is_empty() {
        calls.push(run(engine, program, frame, BATCH)?);
    }
    calls.sort_by(f64::total_cmp);
    calls.get(calls.len() / 2).copied().context("no call")
}

fn run(engine: &Engine, program: Program, frame: &[u8], repeat: u32) -> anyhow::Result<f64> {
    let ran = engine.datapath.test_run(
        program,
        &Run {
            frame,
            mark: 0,
            ifindex: LO,
            ingress_ifindex: 3,
            repeat,
        },
    )?;
    ensure!(ran.code == NEXT, "a packet was dropped");
    Ok(ran.took.as_secs_f64() * 1e9)
}
