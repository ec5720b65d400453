//! What of the node's network belongs to the agent: one nftables table, one rule and route a family.
//!
//! In:  marks, table, priority; the interfaces whose DNS is steered.
//! Out: marked packets reach the proxy and skip connection tracking both ways.
//! Not here: setting the mark (`fqdn-ebpf`), the sockets (`dnsproxy`).
//!
//! No sysctl is set. Where somebody set `src_valid_mark=1` the reverse look-up sees the mark, so
//! the rules name the interfaces that queries come in by.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::{Command, Stdio},
};

use futures_util::TryStreamExt;
use rtnetlink::{
    Handle, IpVersion,
    packet_route::{
        route::RouteAttribute,
        rule::{RuleAttribute, RuleMessage},
    },
};

use crate::steering::{self, Steering, SteeringError};

use super::{config::SteeringConfig, error::DaemonError};

/// Name of the table.
const TABLE: &str = "namegate";
/// `EEXIST`.
const EXISTS: i32 = 17;

/// The agent's part of the network.
#[derive(Debug)]
pub(crate) struct Network {
    steering: Steering,
    reply_mark: u32,
    /// Interfaces the rules name; empty where one rule for all is enough.
    named: BTreeSet<String>,
}

impl Network {
    /// Takes over what a predecessor with the same numbers left; refuses what is somebody else's.
    pub(crate) async fn install(
        handle: &Handle,
        config: &SteeringConfig,
    ) -> Result<Self, DaemonError> {
        let network = Self {
            steering: Steering {
                mark: config.mark,
                mask: config.mask,
                table: config.table,
                priority: config.priority,
            },
            reply_mark: config.reply_mark,
            named: BTreeSet::new(),
        };
        for version in versions() {
            network.refuse_foreign(handle, version).await?;
        }
        network.nft(&network.table())?;
        let loopback = steering::loopback_index(handle).await?;
        for any in [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ] {
            if any.is_ipv4() || steering::speaks_ipv6() {
                settled(network.steering.route(handle, any, loopback).await)?;
            }
        }
        if !src_valid_mark() {
            for version in versions() {
                network.add_rule(handle, version, None).await?;
            }
        }
        Ok(network)
    }

    /// Makes the rules fit the interfaces that queries come in by.
    pub(crate) async fn serve(
        &mut self,
        handle: &Handle,
        interfaces: &BTreeSet<String>,
    ) -> Result<(), DaemonError> {
        if !src_valid_mark() {
            return Ok(());
        }
        for version in versions() {
            for name in interfaces.difference(&self.named) {
                self.add_rule(handle, version.clone(), Some(name)).await?;
            }
            for name in self.named.difference(interfaces) {
                self.remove_rules(handle, version.clone(), Some(name))
                    .await?;
            }
            // The rule for all would make the reverse look-up fail.
            self.remove_rules(handle, version, None).await?;
        }
        self.named.clone_from(interfaces);
        Ok(())
    }

    /// Takes everything back.
    pub(crate) async fn remove(&self, handle: &Handle) {
        for version in versions() {
            let mut errors = Vec::new();
            errors.extend(self.remove_rules(handle, version.clone(), None).await.err());
            for name in &self.named {
                errors.extend(
                    self.remove_rules(handle, version.clone(), Some(name))
                        .await
                        .err(),
                );
            }
            errors.extend(self.remove_route(handle, version).await.err());
            for error in errors {
                tracing::warn!(%error, "steering not removed");
            }
        }
        if let Err(error) = self.nft(&format!("delete table inet {TABLE}\n")) {
            tracing::warn!(%error, "table not removed");
        }
    }

    /// A rule at our priority or towards our table that is not ours: DNS would go elsewhere.
    async fn refuse_foreign(&self, handle: &Handle, version: IpVersion) -> Result<(), DaemonError> {
        for rule in rules(handle, version).await? {
            let ours = self.owns(&rule);
            let Steering {
                table, priority, ..
            } = self.steering;
            if !ours && table_of(&rule) == table {
                return Err(DaemonError::Taken {
                    what: format!("routing table {table}"),
                    by: format!("a rule of priority {} uses it", priority_of(&rule)),
                    setting: "steering.table",
                });
            }
            if !ours && priority_of(&rule) == priority && priority != 0 {
                return Err(DaemonError::Taken {
                    what: format!("rule priority {priority}"),
                    by: format!("a rule towards table {}", table_of(&rule)),
                    setting: "steering.priority",
                });
            }
        }
        Ok(())
    }

    async fn add_rule(
        &self,
        handle: &Handle,
        version: IpVersion,
        interface: Option<&str>,
    ) -> Result<(), DaemonError> {
        let mut request = handle.rule().add();
        if let Some(name) = interface {
            request = request.input_interface(name);
        }
        settled(match version {
            IpVersion::V4 => self.steering.rule(request.v4()).await,
            IpVersion::V6 => self.steering.rule(request.v6()).await,
        })
    }

    async fn remove_rules(
        &self,
        handle: &Handle,
        version: IpVersion,
        interface: Option<&str>,
    ) -> Result<(), DaemonError> {
        for rule in rules(handle, version).await? {
            if self.owns(&rule) && interface_of(&rule) == interface {
                handle
                    .rule()
                    .del(rule)
                    .execute()
                    .await
                    .map_err(DaemonError::netlink("remove a rule"))?;
            }
        }
        Ok(())
    }

    async fn remove_route(&self, handle: &Handle, version: IpVersion) -> Result<(), DaemonError> {
        let filter = match version {
            IpVersion::V4 => rtnetlink::RouteMessageBuilder::<Ipv4Addr>::new().build(),
            IpVersion::V6 => rtnetlink::RouteMessageBuilder::<Ipv6Addr>::new().build(),
        };
        let routes: Vec<_> = handle
            .route()
            .get(filter)
            .execute()
            .try_collect()
            .await
            .map_err(DaemonError::netlink("list routes"))?;
        for route in routes {
            let ours = route
                .attributes
                .iter()
                .any(|a| matches!(a, RouteAttribute::Table(id) if *id == self.steering.table));
            if ours {
                handle
                    .route()
                    .del(route)
                    .execute()
                    .await
                    .map_err(DaemonError::netlink("remove a route"))?;
            }
        }
        Ok(())
    }

    fn owns(&self, rule: &RuleMessage) -> bool {
        let has = |wanted: &RuleAttribute| rule.attributes.contains(wanted);
        has(&RuleAttribute::FwMark(self.steering.mark))
            && has(&RuleAttribute::FwMask(self.steering.mask))
            && table_of(rule) == self.steering.table
            && priority_of(rule) == self.steering.priority
    }

    fn table(&self) -> String {
        let Steering { mark, mask, .. } = self.steering;
        let reply = self.reply_mark;
        format!(
            "add table inet {TABLE}\n\
             delete table inet {TABLE}\n\
             table inet {TABLE} {{\n\
             chain queries {{ type filter hook prerouting priority raw; policy accept; \
             meta mark and {mask:#x} == {mark:#x} notrack; }}\n\
             chain replies {{ type filter hook output priority raw; policy accept; \
             meta mark and {mask:#x} == {reply:#x} notrack; }}\n\
             }}\n"
        )
    }

    fn nft(&self, script: &str) -> Result<(), DaemonError> {
        const COMMAND: &str = "nft -f -";
        let failed = |reason: String| DaemonError::Firewall {
            command: COMMAND,
            reason,
        };
        let program = crate::pod::find_program("nft")
            .ok_or_else(|| failed("`nft` is missing; install the package nftables".to_owned()))?;
        let mut child = Command::new(program)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        if let Some(mut input) = child.stdin.take() {
            input
                .write_all(script.as_bytes())
                .map_err(|error| failed(error.to_string()))?;
        }
        let output = child
            .wait_with_output()
            .map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(failed(
                String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            ))
        }
    }
}

fn versions() -> Vec<IpVersion> {
    if steering::speaks_ipv6() {
        vec![IpVersion::V4, IpVersion::V6]
    } else {
        vec![IpVersion::V4]
    }
}

/// Whether the reverse look-up of any interface sees the mark.
fn src_valid_mark() -> bool {
    fs::read_dir("/proc/sys/net/ipv4/conf").is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            fs::read_to_string(entry.path().join("src_valid_mark"))
                .is_ok_and(|value| value.trim() == "1")
        })
    })
}

async fn rules(handle: &Handle, version: IpVersion) -> Result<Vec<RuleMessage>, DaemonError> {
    handle
        .rule()
        .get(version)
        .execute()
        .try_collect()
        .await
        .map_err(DaemonError::netlink("list rules"))
}

fn table_of(rule: &RuleMessage) -> u32 {
    rule.attributes
        .iter()
        .find_map(|a| match a {
            RuleAttribute::Table(id) => Some(*id),
            _ => None,
        })
        .unwrap_or(u32::from(rule.header.table))
}

fn priority_of(rule: &RuleMessage) -> u32 {
    rule.attributes
        .iter()
        .find_map(|a| match a {
            RuleAttribute::Priority(priority) => Some(*priority),
            _ => None,
        })
        .unwrap_or(0)
}

fn interface_of(rule: &RuleMessage) -> Option<&str> {
    rule.attributes.iter().find_map(|a| match a {
        RuleAttribute::Iifname(name) => Some(name.trim_end_matches('\0')),
        _ => None,
    })
}

/// What is there already, with our numbers, is a predecessor's.
fn settled(added: Result<(), SteeringError>) -> Result<(), DaemonError> {
    match added {
        Err(SteeringError::Netlink {
            source: rtnetlink::Error::NetlinkError(message),
            ..
        }) if message.code.is_some_and(|code| code.get().abs() == EXISTS) => Ok(()),
        other => Ok(other?),
    }
}
