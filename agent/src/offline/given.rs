//! What DNS taught, as a world says it.
//!
//! In:  a world.
//! Out: names and addresses per endpoint, or the first mistake.
//! Not here: who is there (`universe`).

use std::collections::HashMap;

use policy::fqdn::Fqdn;

use super::compiled::Taught;
use crate::facts::{Cause, InputError, Party, Sourced, Universe, World};

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
