//! Traffic through a node, with each subject in its way in turns.
//!
//! In:  the subjects.
//! Out: three tables: a stream, connections, round trips.
//! Not here: how each is measured (`traffic`).

use std::{
    os::fd::AsFd as _,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use anyhow::{Context as _, bail, ensure};
use fqdn_ebpf_loader::{Config, Events};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{
    engine::{BY_NAME, Engine, MANY},
    minimal::Minimal,
    place::Place,
    subject::{ALL, MINIMAL, NOTHING, OURS, Subjects},
    traffic,
};
use crate::{
    options::Options,
    rounds::take_turns,
    table::{Bound, Row, Table},
};

pub(super) fn through_a_node(options: &Options) -> anyhow::Result<Vec<Table>> {
    let place = Place::new()?;
    let minimal = Minimal::new(place.ifindex)?;
    let mut engine = Engine::new(&Config::default(), place.ifindex)?;
    let events = engine.events.take().context("the events are taken")?;
    let mut subjects = Subjects::new(&place, minimal, engine);
    let (done, consumed) = (AtomicBool::new(false), AtomicU64::new(0));
    let rows = std::thread::scope(|scope| {
        let consumer = scope.spawn(|| consume(events, &done, &consumed));
        let rows = measured(options, &place, &mut subjects);
        done.store(true, Ordering::Release);
        match consumer.join() {
            Ok(consumed) => consumed?,
            Err(_) => bail!("the consumer of events panicked"),
        }
        rows
    })?;
    ensure!(
        consumed.load(Ordering::Relaxed) > 0,
        "no event was consumed: events were not on"
    );
    let [stream, connects, trips] = rows;
    let table = |title, unit, rows, bound| {
        Table::new(title, unit, rows)
            .against(NOTHING)
            .against(MINIMAL)
            .ratio_target(OURS, MINIMAL, bound)
    };
    Ok(vec![
        table("TCP stream, no GSO", "MB/s", stream, Bound::AtLeast(0.98)),
        table(
            "TCP connect, ask, answer, close",
            "1/s",
            connects,
            Bound::AtLeast(0.95),
        ),
        table("UDP round trip", "µs", trips, Bound::AtMost(1.07)),
    ])
}

fn measured(
    options: &Options,
    place: &Place,
    subjects: &mut Subjects<'_>,
) -> anyhow::Result<[Vec<Row>; 3]> {
    let mut nth = 0;
    take_turns(options, &ALL, |subject| {
        nth += 1;
        let fresh = Place::fresh(MANY.0, nth);
        subjects
            .with(subject, || {
                Ok([
                    traffic::stream(place, BY_NAME, options.slice)? / 1e6,
                    traffic::connects(place, fresh, options.slice)?,
                    traffic::round_trip(place, BY_NAME, options.slice)?,
                ])
            })
            .with_context(|| format!("measuring `{subject}`"))
    })
}

/// Takes events as the agent does, on the processor of the traffic.
fn consume(mut events: Events, done: &AtomicBool, consumed: &AtomicU64) -> anyhow::Result<()> {
    traffic::pin()?;
    while !done.load(Ordering::Acquire) {
        let mut ready = [PollFd::new(events.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::from(100_u8))?;
        while events.next().is_some() {
            consumed.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::sleep(Events::REST);
    }
    Ok(())
}
