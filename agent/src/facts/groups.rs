//! The groups of prefixes of a world.
//!
//! In:  a world.
//! Out: values for the compiler, or the first mistake.
//! Not here: groups in policy files (`policy::parse`).

use std::{collections::BTreeSet, sync::Arc};

use identity::Label;
use policy::model::CidrGroup;

use super::{Cause, InputError, Sourced, World};

/// The groups of prefixes of the world.
pub(crate) fn groups(world: &Sourced<World>) -> Result<Vec<CidrGroup>, InputError> {
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
