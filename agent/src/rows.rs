//! The ledger and the selectors as operators see them.
//!
//! In:  rows of the DNS proxy's ledger, compiled policies.
//! Out: the values of `api`.
//! Not here: asking the proxy.

use std::{collections::BTreeMap, net::IpAddr};

use policy::{compiled::EndpointPolicy, fqdn::Fqdn};

use crate::{
    api::{CacheRow, Cleaned, FqdnNames, FqdnSelector},
    recorder::WallClock,
};

/// Rows with times of day.
pub(crate) fn cache(rows: Vec<dnsproxy_core::CacheRow>, clock: &WallClock) -> Vec<CacheRow> {
    rows.into_iter()
        .map(|row| CacheRow {
            endpoint: row.endpoint.get(),
            source: match row.source {
                dnsproxy_core::Source::Lookup => "lookup",
                dnsproxy_core::Source::Connection => "connection",
            }
            .to_owned(),
            fqdn: row.name.as_str().to_owned(),
            ttl: row.ttl,
            lookup_time: clock.time(row.looked_up),
            expiration_time: clock.time(row.expires),
            ips: row.addresses,
        })
        .collect()
}

/// How much was forgotten.
pub(crate) const fn cleaned(cleaned: dnsproxy_core::Cleaned) -> Cleaned {
    Cleaned {
        names: cleaned.names,
        addresses: cleaned.addresses,
    }
}

/// The selectors of a policy that match a name.
pub(crate) fn selectors_of(policy: &EndpointPolicy, name: &str) -> Vec<String> {
    let Ok(name) = Fqdn::parse(name) else {
        return Vec::new();
    };
    policy
        .selectors_matching(&name)
        .iter()
        .filter_map(|id| Some(policy.selectors.get(id)?.to_string()))
        .collect()
}

/// Every selector with the names it matches; `policy_of` knows the policy of a row's endpoint.
pub(crate) fn names<'a>(
    policies: impl IntoIterator<Item = &'a EndpointPolicy>,
    rows: &[CacheRow],
    policy_of: impl Fn(u32) -> Option<&'a EndpointPolicy>,
) -> FqdnNames {
    let mut selectors: BTreeMap<String, (Vec<String>, Vec<IpAddr>)> = policies
        .into_iter()
        .flat_map(|policy| policy.selectors.iter())
        .map(|(_, selector)| (selector.to_string(), Default::default()))
        .collect();
    for row in rows {
        let Some(policy) = policy_of(row.endpoint) else {
            continue;
        };
        for selector in selectors_of(policy, &row.fqdn) {
            let (names, ips) = selectors.entry(selector).or_default();
            names.push(row.fqdn.clone());
            ips.extend(&row.ips);
        }
    }
    FqdnNames {
        selectors: selectors
            .into_iter()
            .map(|(selector_string, (mut names, mut ips))| {
                names.sort_unstable();
                names.dedup();
                ips.sort_unstable();
                ips.dedup();
                FqdnSelector {
                    selector_string,
                    names,
                    ips,
                }
            })
            .collect(),
    }
}
