//! Whether the fields of a configuration file fit together.
//!
//! In:  a [`Config`] as it was read.
//! Out: the first contradiction: which field, and what is wrong with it.
//! Not here: what a field may look like by itself (`endpoint`, `settings`).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::Config;

/// Endpoints one agent takes on, whatever the maps could hold.
const MOST_ENDPOINTS: usize = 10_000;

impl Config {
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        let wrong = |field: &str, reason: String| Err((field.to_owned(), reason));
        if self.policies.is_empty() {
            return wrong("policies", "name at least one file or folder".to_owned());
        }
        self.check_endpoints()?;
        let steering = &self.steering;
        if steering.shards == 0 || steering.shards > 64 {
            return wrong("steering.shards", "must be 1 to 64".to_owned());
        }
        if steering.port == 0 || steering.port.checked_add(steering.lanes()).is_none() {
            return wrong(
                "steering.port",
                "the listeners' ports must be 1 to 65535".to_owned(),
            );
        }
        let (mark, reply, mask) = (steering.mark, steering.reply_mark, steering.mask);
        if mark & !mask != 0 || reply & !mask != 0 || mark == reply || mark == 0 || reply == 0 {
            return wrong(
                "steering.mark",
                format!(
                    "{mark:#x} and {reply:#x} must differ, be within the mask {mask:#x}, and not be 0"
                ),
            );
        }
        if matches!(steering.table, 0 | 253..=255) {
            return wrong(
                "steering.table",
                "must not be one of the kernel's own".to_owned(),
            );
        }
        for (field, value) in [
            ("sizes.endpoints", self.sizes.endpoints),
            ("sizes.addresses", self.sizes.addresses),
            ("sizes.prefixes", self.sizes.prefixes),
            ("sizes.learned", self.sizes.learned),
            ("sizes.policy", self.sizes.policy),
            ("sizes.flows", self.sizes.flows),
            ("sizes.datagrams", self.sizes.datagrams),
        ] {
            if value == 0 || value > 1 << 24 {
                return wrong(field, "must be 1 to 16777216".to_owned());
            }
        }
        if self.addresses_per_endpoint() == 0 {
            return wrong(
                "sizes.learned",
                "must be at least sizes.endpoints".to_owned(),
            );
        }
        let quotas = u64::from(self.addresses_per_endpoint()) * u64::from(self.sizes.endpoints);
        if quotas > u64::from(self.sizes.learned) {
            return wrong(
                "limits.addresses",
                format!(
                    "{} endpoints with {} addresses each do not fit sizes.learned, {}",
                    self.sizes.endpoints,
                    self.addresses_per_endpoint(),
                    self.sizes.learned
                ),
            );
        }
        Ok(())
    }

    fn check_endpoints(&self) -> Result<(), (String, String)> {
        let most = usize::try_from(self.sizes.endpoints)
            .unwrap_or(usize::MAX)
            .min(MOST_ENDPOINTS);
        if self.endpoints.len() > most {
            return Err((
                "endpoints".to_owned(),
                format!(
                    "{} of them, but sizes.endpoints allows {most}",
                    self.endpoints.len()
                ),
            ));
        }
        let mut interfaces = BTreeSet::new();
        let mut addresses: BTreeMap<IpAddr, &str> = BTreeMap::new();
        for (at, endpoint) in self.endpoints.iter().enumerate() {
            let field = |name: &str| format!("endpoints[{at}].{name}");
            let name = &endpoint.interface;
            if name.is_empty() || name.len() > 15 || name.contains(['/', ' ']) {
                return Err((field("interface"), format!("`{name}` is no interface name")));
            }
            if !interfaces.insert(name) {
                return Err((
                    field("interface"),
                    format!("`{name}` belongs to another endpoint"),
                ));
            }
            let (v4, v6): (Vec<_>, Vec<_>) = endpoint
                .addresses
                .iter()
                .map(IpAddr::to_canonical)
                .partition(IpAddr::is_ipv4);
            if v4.len() > 1 || v6.len() > 2 || endpoint.addresses.is_empty() {
                return Err((
                    field("addresses"),
                    "an endpoint has one IPv4 address, or up to two IPv6 addresses, or both"
                        .to_owned(),
                ));
            }
            for address in v4.into_iter().chain(v6) {
                if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
                    return Err((
                        field("addresses"),
                        format!("{address} cannot be a workload's"),
                    ));
                }
                if let Some(other) = addresses.insert(address, name) {
                    return Err((
                        field("addresses"),
                        format!(
                            "{address} belongs to `{other}`; two endpoints cannot share an address"
                        ),
                    ));
                }
            }
        }
        Ok(())
    }
}
