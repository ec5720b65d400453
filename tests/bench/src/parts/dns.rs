//! The DNS path: what the proxy costs, next to the least that could be done about it.
//!
//! In:  root, a C compiler.
//! Out: queries a second, processor time a query, and round trips: without a proxy, through a relay
//!      that parses nothing, through ours with 250 rules and maps written.
//! Not here: other people's forwarders, answers from a cache.
//!
//! The relay stands where the proxy stands: the same program steers to it, and it answers with the
//! address of the server that was asked. What differs is what happens in user space.

mod arena;
mod client;
mod cpu;
mod ours;
mod relay;
mod server;

use anyhow::ensure;

use crate::{
    options::Options,
    parts::dns::arena::{Arena, DIRECT, OURS, RELAY},
    rounds::take_turns,
    table::{Bound, Row, Table},
};
use client::{Client, Names};

/// Names that are asked for over and over.
const KNOWN: u32 = 10_000;
/// Queries under way at once.
const WINDOW: usize = 100;

pub(super) fn run(options: &Options) -> anyhow::Result<Vec<Table>> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "loading programs needs root: `sudo cargo xtask bench`"
    );
    let mut arena = Arena::new()?;
    let mut tables = Vec::new();
    for ports in [4, 256, 10_000] {
        let names = Names::cycle(KNOWN);
        let title = format!("{ports} client ports, {KNOWN} names");
        tables.extend(flood(options, &mut arena, &title, ports, names, 1.5)?);
    }
    let title = "256 client ports, every name and address new";
    tables.extend(flood(options, &mut arena, title, 256, Names::fresh(), 2.0)?);
    tables.extend(round_trips(options, &mut arena)?);
    Ok(tables)
}

/// As many queries as go through, the subject on a processor of its own.
fn flood(
    options: &Options,
    arena: &mut Arena,
    title: &str,
    ports: usize,
    mut names: Names,
    most_cpu: f64,
) -> anyhow::Result<[Table; 2]> {
    let mut client = Client::new(arena, ports)?;
    arena.spread()?;
    let [rates, costs] = take_turns(options, &[DIRECT, RELAY, OURS], |subject| {
        arena.with(subject, |cpu| {
            client.flood(&mut names, WINDOW, options.slice / 4)?;
            let before = cpu.spent()?;
            let flooded = client.flood(&mut names, WINDOW, options.slice)?;
            let spent = cpu.spent()?.saturating_sub(before);
            let rate = flooded.answered as f64 / flooded.took.as_secs_f64();
            Ok([rate, spent.as_secs_f64() * 1e6 / flooded.answered as f64])
        })
    })?;
    Ok([
        Table::new(format!("queries through, {title}"), "1/s", rates)
            .against(RELAY)
            .ratio_target(OURS, RELAY, Bound::AtLeast(0.8)),
        Table::new(
            format!("processor time a query, {title}"),
            "µs",
            proxies(costs),
        )
        .against(RELAY)
        .ratio_target(OURS, RELAY, Bound::AtMost(most_cpu)),
    ])
}

/// One query at a time, everybody on one processor.
fn round_trips(options: &Options, arena: &mut Arena) -> anyhow::Result<[Table; 2]> {
    let mut client = Client::new(arena, 4)?;
    let mut names = Names::cycle(KNOWN);
    arena.crowd()?;
    let [half, most] = take_turns(options, &[DIRECT, RELAY, OURS], |subject| {
        arena.with(subject, |_| client.round_trips(&mut names, options.slice))
    })?;
    let table = |title, rows, bound| {
        Table::new(title, "µs", rows)
            .against(RELAY)
            .ratio_target(OURS, RELAY, bound)
    };
    Ok([
        table("round trip, half of them within", half, Bound::AtMost(1.2)),
        table("round trip, 99 of 100 within", most, Bound::AtMost(1.5)),
    ])
}

/// Without a proxy there is nobody whose time counts.
fn proxies(rows: Vec<Row>) -> Vec<Row> {
    rows.into_iter()
        .filter(|row| row.subject != DIRECT)
        .collect()
}
