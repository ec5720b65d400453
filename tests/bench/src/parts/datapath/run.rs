//! Nanoseconds per packet by BPF_PROG_TEST_RUN: the program alone, without a network around it.
//!
//! In:  a full engine.
//! Out: one table: established packets, and packets that open a flow.
//! Not here: what the network adds to it.

use std::{net::Ipv4Addr, time::Instant};

use anyhow::{Context as _, ensure};
use fqdn_ebpf_loader::{Config, Program, Run};
use support::Netns;

use super::{
    engine::{BY_ADDRESS, BY_NAME, BY_PREFIX, Engine, PORT},
    frame::{self, ACK, SYN},
    minimal::Minimal,
    traffic,
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

const MINIMAL_OUT: &str = "minimal, established, from the workload";
const MINIMAL_BACK: &str = "minimal, established, to the workload";
const OUT: &str = "established, from the workload";
const BACK: &str = "established, to the workload";
const NEW_BY_NAME: &str = "new, peer known by name";
const NEW_BY_ADDRESS: &str = "new, peer with an identity";
const NEW_BY_PREFIX: &str = "new, peer within a prefix";

pub(super) fn nanoseconds(options: &Options) -> anyhow::Result<Table> {
    let netns = Netns::new("bench")?;
    netns.run(|| measured(options))?
}

/// Both kinds of programs, loaded.
struct Programs {
    minimal: Minimal,
    engine: Engine,
}

/// Whose program.
#[derive(Clone, Copy)]
enum Whose {
    Minimal,
    Ours,
}

fn measured(options: &Options) -> anyhow::Result<Table> {
    traffic::pin()?;
    let mut programs = Programs {
        minimal: Minimal::new(LO)?,
        engine: Engine::new(&Config::default(), LO)?,
    };
    for peer in [BY_NAME, BY_ADDRESS, BY_PREFIX] {
        for whose in [Whose::Minimal, Whose::Ours] {
            let (syn, answer) = (
                frame::out(peer, PORT, SYN),
                frame::back(peer, PORT, SYN | ACK),
            );
            programs.run(whose, Program::FromPod, &syn, 1)?;
            programs.run(whose, Program::ToPod, &answer, 1)?;
        }
    }
    let subjects = [
        MINIMAL_OUT,
        MINIMAL_BACK,
        OUT,
        BACK,
        NEW_BY_NAME,
        NEW_BY_ADDRESS,
        NEW_BY_PREFIX,
    ];
    let [rows] = take_turns(options, &subjects, |subject| {
        let out = || frame::out(BY_ADDRESS, PORT, ACK);
        let back = || frame::back(BY_ADDRESS, PORT, ACK);
        let syn = |peer: Ipv4Addr| frame::out(peer, PORT, SYN);
        let (whose, program, frame) = match subject {
            MINIMAL_OUT => (Whose::Minimal, Program::FromPod, out()),
            MINIMAL_BACK => (Whose::Minimal, Program::ToPod, back()),
            OUT => (Whose::Ours, Program::FromPod, out()),
            BACK => (Whose::Ours, Program::ToPod, back()),
            NEW_BY_NAME => (Whose::Ours, Program::FromPod, syn(BY_NAME)),
            NEW_BY_ADDRESS => (Whose::Ours, Program::FromPod, syn(BY_ADDRESS)),
            _ => (Whose::Ours, Program::FromPod, syn(BY_PREFIX)),
        };
        Ok([programs.per_run(options, whose, program, &frame)?])
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

impl Programs {
    /// The median of as many calls as fit the time.
    fn per_run(
        &mut self,
        options: &Options,
        whose: Whose,
        program: Program,
        frame: &[u8],
    ) -> anyhow::Result<f64> {
        let mut calls = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < options.slice || calls.is_empty() {
            calls.push(self.run(whose, program, frame, BATCH)?);
        }
        calls.sort_by(f64::total_cmp);
        calls.get(calls.len() / 2).copied().context("no call")
    }

    /// Nanoseconds a run; the packet must pass.
    fn run(
        &mut self,
        whose: Whose,
        program: Program,
        frame: &[u8],
        repeat: u32,
    ) -> anyhow::Result<f64> {
        let (code, nanoseconds) = match whose {
            Whose::Minimal => self.minimal.run(program, LO, frame, repeat)?,
            Whose::Ours => {
                let run = Run {
                    frame,
                    mark: 0,
                    ifindex: LO,
                    ingress_ifindex: 3,
                    repeat,
                };
                let ran = self.engine.datapath.test_run(program, &run)?;
                (ran.code, ran.took.as_secs_f64() * 1e9)
            }
        };
        ensure!(code == NEXT, "a packet was dropped");
        Ok(nanoseconds)
    }
}
