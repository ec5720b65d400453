//! Parts of a world that are given, not compiled: groups of prefixes, what DNS taught.
//!
//! In:  a world.
//! Out: values for the compiler, or the first mistake.
//! Not here: who is there (`universe`).

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use identity::Label;
use policy::{fqdn::Fqdn, model::CidrGroup};

use super::{
    Cause, InputError, Sourced,
    compiled::Taught,
    universe::{Party, Universe},
    world::World,
};

/// The groups of prefixes of the world.
pub(super) fn groups(world: &Sourced<World>) -> Result<Vec<CidrGroup>, InputError> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for (at, written) in world.value.cidr_groups.iter().enumerate() {
        let group = &written.value;
        if !seen.insert(&*group.name) {
            let cause = Cause::Twice {
                kind: "CIDR group",
                name: group.name.clone(),
            };
            return Err(world.wrong(written, format!("cidrGroups[{at}].name"), cause));
        }
        let labels = group.labels.iter();
        all.push(CidrGroup {
            name: (&*group.name).into(),
            labels: labels.map(|(key, value)| Label::k8s(key, value)).collect(),
            prefixes: group.cidrs.iter().map(|prefix| prefix.0).collect(),
            file: Arc::clone(&world.file),
            line: u32::try_from(written.referenced.line()).unwrap_or(0),
        });
    }
    Ok(all)
}

/// What each endpoint learned by name.
pub(super) fn names(
    world: &Sourced<World>,
    universe: &Universe,
) -> Result<HashMap<usize, Vec<Taught>>, InputError> {
    let mut all: HashMap<_, Vec<_>> = HashMap::new();
    for (at, written) in world.value.names.iter().enumerate() {
        let entry = &written.value;
        let field = |name: &str| format!("names[{at}].{name}");
        let party = universe
            .party(&entry.endpoint.value)
            .map_err(|cause| world.wrong(&entry.endpoint, field("endpoint"), cause))?;
        let Party::Pod(pod) = party else {
            let cause = Cause::Unknown {
                kind: "endpoint",
                name: entry.endpoint.value.clone(),
                suggestion: None,
            };
            return Err(world.wrong(&entry.endpoint, field("endpoint"), cause));
        };
        let name = Fqdn::parse(&entry.name.value).map_err(|why| {
            let cause = Cause::Name {
                name: entry.name.value.clone(),
                why: why.to_string(),
            };
            world.wrong(&entry.name, field("name"), cause)
        })?;
        let addresses = entry.ips.iter().map(|ip| ip.0).collect();
        all.entry(pod).or_default().push(Taught { name, addresses });
    }
    Ok(all)
}
