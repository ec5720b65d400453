//! The world a script describes: endpoints, policies, trust.
//!
//! In:  words of a script.
//! Out: settings and snapshots for the core.
//! Not here: what happens in it (`conversation`).

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use dnsproxy_core::{Config, EndpointSnapshot, RefuseWith, Snapshot};
use identity::{AddressBook, EndpointId, IdentityId, SelectorId};
use policy::{
    compiled::{
        DnsNames, DnsRule, DnsRuleKind, EndpointPolicy, Peer, PolicyKind, PolicyRef, PortPrefix,
        RuleOrigin,
    },
    fqdn::NameSelector,
};

/// One workload of the script.
#[derive(Clone, Debug)]
struct Workload {
    address: IpAddr,
    audit: bool,
    fqdn: Vec<String>,
    /// Its selectors after the change that is under way.
    coming: Option<Vec<String>>,
    dns: Option<Vec<String>>,
}

/// Everything a snapshot is made of.
#[derive(Default, Debug)]
pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) selector_names: Vec<String>,
    workloads: BTreeMap<u32, Workload>,
    book: AddressBook,
    snapshot: Snapshot,
}

impl World {
    /// Takes a command that describes the world; false when it is not one.
    pub(crate) fn describe(&mut self, words: &[&str]) -> Result<bool> {
        match words {
            ["limit", what, value] => self.limit(what, value.parse()?)?,
            ["setting", "refuse-with", "nxdomain"] => {
                self.config.refuse_with = RefuseWith::NxDomain
            }
            ["setting", "withhold-private"] => self.config.rebinding.withhold_private = true,
            ["setting", "allow", prefix] => self.config.rebinding.allow.push(prefix.parse()?),
            ["trust", servers @ ..] => {
                for server in servers {
                    self.snapshot.trusted.insert(self::server(server)?);
                }
            }
            ["redirect", address, "to", upstreams @ ..] => {
                let upstreams: Vec<SocketAddr> =
                    upstreams.iter().map(|u| server(u)).collect::<Result<_>>()?;
                self.snapshot.redirects.insert(address.parse()?, upstreams);
            }
            ["identity", address, number] => {
                let id = IdentityId::from_raw(number.parse()?);
                self.book.insert_address(address.parse()?, id);
            }
            ["node", address] => {
                self.snapshot.node_addresses.insert(address.parse()?);
            }
            ["endpoint", number, address, mode @ ..] => {
                let workload = Workload {
                    address: address.parse()?,
                    audit: mode == ["audit"],
                    fqdn: Vec::new(),
                    coming: None,
                    dns: None,
                };
                self.workloads.insert(number.parse()?, workload);
            }
            ["fqdn", number, selectors @ ..] => {
                let workload = self.workload(number)?;
                workload.fqdn = selectors.iter().map(ToString::to_string).collect();
                workload.coming = None;
            }
            ["coming", number, selectors @ ..] => {
                self.workload(number)?.coming =
                    Some(selectors.iter().map(ToString::to_string).collect());
            }
            ["dns", number, selectors @ ..] => {
                self.workload(number)?.dns =
                    Some(selectors.iter().map(ToString::to_string).collect());
            }
            ["gone", number] => {
                self.workloads.remove(&number.parse()?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The address of a workload.
    pub(crate) fn address(&self, number: u32) -> Result<IpAddr> {
        // An endpoint nobody knows asks from somewhere, too.
        Ok(self
            .workloads
            .get(&number)
            .map_or("10.255.255.255".parse()?, |w| w.address))
    }

    /// The world as the core is told it.
    pub(crate) fn snapshot(&mut self) -> Result<Snapshot> {
        self.snapshot.revision += 1;
        self.snapshot.book = Arc::new(self.book.clone());
        let workloads = self.workloads.clone();
        self.snapshot.endpoints = workloads
            .iter()
            .map(|(number, workload)| {
                Ok(EndpointSnapshot {
                    id: EndpointId::new(*number),
                    addresses: vec![workload.address],
                    policy: Arc::new(self.policy(workload, &workload.fqdn)?),
                    next: match &workload.coming {
                        Some(coming) => Some(Arc::new(self.policy(workload, coming)?)),
                        None => None,
                    },
                    enforced: None,
                    audit: workload.audit,
                })
            })
            .collect::<Result<_>>()?;
        Ok(self.snapshot.clone())
    }

    fn workload(&mut self, number: &str) -> Result<&mut Workload> {
        self.workloads
            .get_mut(&number.parse()?)
            .with_context(|| format!("no endpoint {number}"))
    }

    fn limit(&mut self, what: &str, value: usize) -> Result<()> {
        let limits = &mut self.config.limits;
        *match what {
            "in-flight" => &mut limits.in_flight_per_endpoint,
            "names" => &mut limits.names_per_endpoint,
            "addresses" => &mut limits.addresses_per_endpoint,
            "addresses-per-name" => &mut limits.addresses_per_name,
            "unmatched" => &mut limits.unmatched_names,
            "names-per-address" => &mut limits.names_per_address,
            other => bail!("limit `{other}`"),
        } = value;
        Ok(())
    }

    fn policy(&mut self, workload: &Workload, names: &[String]) -> Result<EndpointPolicy> {
        let selectors = names
            .iter()
            .map(|text| Ok((self.selector(text), selector(text)?)))
            .collect::<Result<Vec<_>>>()?;
        let names = match &workload.dns {
            None => DnsNames::All,
            Some(texts) => {
                DnsNames::Only(texts.iter().map(|t| selector(t)).collect::<Result<_>>()?)
            }
        };
        let origin = RuleOrigin {
            policy: PolicyRef {
                kind: PolicyKind::CiliumNetworkPolicy,
                namespace: "default".into(),
                name: "web".into(),
            },
            file: "web.yaml".into(),
            line: 12,
            text: "rules.dns".into(),
        };
        Ok(EndpointPolicy {
            default_deny_egress: true,
            selectors: selectors.into_iter().collect(),
            dns_rules: vec![DnsRule {
                kind: DnsRuleKind::Port,
                server: Peer::Any,
                proto: None,
                ports: PortPrefix::one(53),
                names,
                origin: Some(Arc::new(origin)),
            }],
            ..EndpointPolicy::default()
        })
    }

    fn selector(&mut self, text: &str) -> SelectorId {
        let known = self.selector_names.iter().position(|name| name == text);
        let at = known.unwrap_or_else(|| {
            self.selector_names.push(text.to_owned());
            self.selector_names.len() - 1
        });
        SelectorId::new(u32::try_from(at).unwrap_or(u32::MAX))
    }
}

fn selector(text: &str) -> Result<NameSelector> {
    Ok(if text.contains('*') {
        NameSelector::pattern(text)?
    } else {
        NameSelector::name(text)?
    })
}

/// `IP` or `IP:PORT`; the port is 53 unless it is named.
pub(crate) fn server(text: &str) -> Result<SocketAddr> {
    if let Ok(server) = text.parse() {
        return Ok(server);
    }
    let address: IpAddr = text.parse().with_context(|| format!("server `{text}`"))?;
    Ok(SocketAddr::new(address, 53))
}
